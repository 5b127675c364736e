-- What wrk has counted, exact and as one line of JSON.
done = function(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"units":%d,"bytes":%d,"errors":%d,"seconds":%.6f}\n',
    summary.requests, summary.bytes,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status,
    summary.duration / 1e6))
end
