#!/usr/bin/env bash
# OpenMetrics given to a parser of the older text format loses its counters' type, or is refused.
#
# Programs: prometheus 2.42.0+ds-5+deb12u1 (Debian; promtool), prometheus-client 0.21.1 (PyPI),
#           parse-prometheus-text-format 1.1.1 (npm).
# Guess:    OpenMetrics 1.0 is the older format and some comments: what reads one reads the other.
# Seen:     "# TYPE a counter" and "a_total 1" are one counter in OpenMetrics; for both libraries they
#           are a counter "a" without samples and "a_total" without a type. promtool check metrics
#           goes further: it knows no type "info" and refuses the whole page. The other way round
#           "# TYPE a_total counter" is refused by an OpenMetrics parser.
# Output:   python, OpenMetrics parser   a: counter, 1 sample
#           python, text parser          a: counter, 0 samples; a_total: unknown, 1 sample
#           npm, text parser             a: COUNTER, 0 samples; a_total: UNTYPED, 1 sample
#           promtool check metrics       text format parsing error in line 5: unknown metric type "info"
#           OpenMetrics parser, "# TYPE a_total counter"   refused
# Means:    an exporter that answers in OpenMetrics whatever Accept says is fine for Prometheus, and
#           half understood by scripts and agents with the common libraries: look at Content-Type and
#           take the other parser. promtool cannot lint such a page.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb prometheus=2.42.0+ds-5+deb12u1
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" prometheus-client==0.21.1
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" parse-prometheus-text-format@1.1.1 >/dev/null
printf '%s\n' '# TYPE a counter' '# HELP a Things.' 'a_total 1' '# HELP b Build.' '# TYPE b info' 'b_info{version="1"} 1' '# EOF' >"$T/info"
printf '%s\n' '# TYPE a counter' '# HELP a Things.' 'a_total 1' '# EOF' >"$T/page"
PYTHONPATH=$T/py python3 - "$T/page" <<'EOF'
import sys
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as om
page = open(sys.argv[1]).read()
def found(families): return "; ".join(f"{f.name}: {f.type}, {len(f.samples)} sample" + "s" * (len(f.samples) != 1) for f in families)
new, old = found(om.text_string_to_metric_families(page)), found(parser.text_string_to_metric_families(page))
try: list(om.text_string_to_metric_families("# TYPE a_total counter\na_total 1\n# EOF\n")); other = "taken"
except ValueError: other = "refused"
print(f'python, OpenMetrics parser   {new}\npython, text parser          {old}\nOpenMetrics parser, "# TYPE a_total counter"   {other}')
sys.exit((new, old, other) != ("a: counter, 1 sample", "a: counter, 0 samples; a_total: unknown, 1 sample", "refused"))
EOF
(cd "$T" && node -e '
const found = require("parse-prometheus-text-format")(require("fs").readFileSync("page", "utf8"));
const text = found.map((f) => `${f.name}: ${f.type}, ${f.metrics.length}`).join("; ");
console.log("npm, text parser             " + text);
process.exit(text === "a: COUNTER, 0; a_total: UNTYPED, 1" ? 0 : 1);
')
LD_LIBRARY_PATH=$LIBS "$T/r/usr/bin/promtool" check metrics <"$T/info" >"$T/said" 2>&1 && exit 1
grep -o 'text format parsing error in line 5: unknown metric type "info"' "$T/said"
