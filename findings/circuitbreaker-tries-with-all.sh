#!/usr/bin/env bash
# When its pause is over, circuitbreaker lets every waiting call through to the server, not one.
#
# Programs: circuitbreaker 2.1.3 and pybreaker 1.4.1 (PyPI). Three failures open the breaker; when its pause
#           of one second is over, 20 threads call at once, and each call takes 0.3 s and fails.
# Guess:    "half open" means one call on trial; the others are refused until its result is known.
# Seen:     so it is with pybreaker. circuitbreaker looks at the clock only: until the first of the calls
#           has failed, all are let through.
# Output:   circuitbreaker    20 of 20 calls reach the server
#           pybreaker          1 of 20
# Means:    a server that is coming back gets all its clients' threads in the same instant, once in each
#           pause; with a connect time-out of 3 s, three seconds' worth of calls. A limit of sessions or
#           a slow start in the balancer is what protects it, not the breaker.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" circuitbreaker==2.1.3 pybreaker==1.4.1
PYTHONPATH=$T/py python3 - <<'EOF'
import sys, threading, time
import circuitbreaker, pybreaker
def reached(breaker):
    calls, slow, lock, start = 0, 0.0, threading.Lock(), threading.Barrier(20)
    def server():
        nonlocal calls
        with lock: calls += 1
        time.sleep(slow)
        raise ConnectionError("refused")
    guarded = breaker(server)
    def attempt():
        try: guarded()
        except (ConnectionError, circuitbreaker.CircuitBreakerError, pybreaker.CircuitBreakerError): pass
    for _ in range(3): attempt()
    opened = calls
    attempt()
    assert calls == opened == 3, "the breaker is open now"
    time.sleep(1.3)
    calls, slow = 0, 0.3
    def together(): start.wait(); attempt()
    threads = [threading.Thread(target=together) for _ in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return calls
seen = {"circuitbreaker": reached(circuitbreaker.CircuitBreaker(failure_threshold=3, recovery_timeout=1)),
        "pybreaker": reached(pybreaker.CircuitBreaker(fail_max=3, reset_timeout=1))}
for name, calls in seen.items(): print(f"{name:18}{calls:2} of 20 calls reach the server")
sys.exit(not (seen["circuitbreaker"] >= 15 and seen["pybreaker"] == 1))
EOF
