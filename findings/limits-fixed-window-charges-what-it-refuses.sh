#!/usr/bin/env bash
# One fixed window takes the price of a refused request off the budget; the other two kinds do not.
#
# Program:  limits 5.8.0 (PyPI; under flask-limiter and slowapi), MemoryStorage, ten per minute.
# Guess:    what is refused costs nothing, whatever the strategy: with 7 of 10 used, a request of 5 is refused, and one of
#           1 and another of 2 are let in.
# Seen:     FixedWindow adds the 5 before it looks: nothing is left for the rest of the minute. The moving and the
#           sliding window leave the 3.
# Output:                       hit 7    hit 5     left    hit 1    hit 2
#           FixedWindow         yes      no        0       no       no
#           MovingWindow        yes      no        3       yes      yes
#           SlidingWindow       yes      no        3       yes      yes
# Means:    where requests have prices (bytes, rows, tokens) one that is too large closes the door to its client until the
#           window ends, and what a balancer's limit and the application's let through differ for no visible reason.
#           Ask test() before hit(), or take another strategy.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" limits==5.8.0
PYTHONPATH=$T/py python3 - <<'EOF'
import sys, time
from limits import parse, storage, strategies
kinds = {"FixedWindow": strategies.FixedWindowRateLimiter, "MovingWindow": strategies.MovingWindowRateLimiter,
         "SlidingWindow": strategies.SlidingWindowCounterRateLimiter}
if time.time() % 60 > 55: time.sleep(6)  # one window for all
rate, seen = parse("10/minute"), {}
print(f"{'':20}hit 7    hit 5     left    hit 1    hit 2")
for name, kind in kinds.items():
    limiter = kind(storage.MemoryStorage())
    first, refused = limiter.hit(rate, "client", cost=7), limiter.hit(rate, "client", cost=5)
    left = limiter.get_window_stats(rate, "client").remaining
    seen[name] = (first, refused, left, limiter.hit(rate, "client"), limiter.hit(rate, "client", cost=2))
    words = [("no", "yes")[value] if isinstance(value, bool) else value for value in seen[name]]
    print("{:20}{:9}{:10}{:<8}{:9}{}".format(name, *words))
others = (True, False, 3, True, True)
sys.exit(list(seen.values()) != [(True, False, 0, False, False), others, others])
EOF
