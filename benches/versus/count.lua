-- What wrk has counted, exact and as one line of JSON; latency is that of a closed loop.
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"units":%d,"bytes":%d,"errors":%d,"seconds":%.6f,"latency":{"p50_us":%d,"p99_us":%d}}\n',
    summary.requests, summary.bytes,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99)))
end
