"""Configurations of the backend and of every proxy.

Each proxy has three listening addresses: `web` forwards whatever comes, `limited` refuses a client
that connects too often, and both lead to the same backend; `small` leads to one that is otherwise
idle. Sizes (backlog, connections, timeouts) are
the same for all as far as they can be said; everything else is the default of each.
"""
import json

BACKEND = """
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.log;
worker_rlimit_nofile 100000;
events {{ worker_connections 20000; }}
http {{ access_log off; sendfile on; tcp_nopush on;
  keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ listen {place} backlog=4096; root {dir}/www;
    location = /sink {{ return 204; }} }} }}
"""
EVENKEEL = """
[global]
workers = {threads}
{tuning}
log = {{ sessions = "none", level = "error" }}
[admin]
socket = "{dir}/{socket}"
[listener.web]
bind = ["{web}"]
pool = "web"
[listener.limited]
bind = ["{limited}"]
pool = "web"
limit = {{ rate = "1/h", burst = 1 }}
[listener.small]
bind = ["{small}"]
pool = "small"
[pool.web]
backends = ["{backend}"]
[pool.small]
backends = ["{idle}"]
"""
HAPROXY = """
global
  nbthread {threads}
  maxconn 6000
  {tuning}
defaults
  mode tcp
  timeout connect 3s
  timeout client 600s
  timeout server 600s
  {options}
listen web
  bind {web} backlog 4096
  server one {backend}
listen limited
  bind {limited} backlog 4096
  stick-table type ip size 64k expire 60s store conn_rate(10s)
  tcp-request connection track-sc0 src
  tcp-request connection reject if {{ sc0_conn_rate gt 1 }}
  server one {backend}
listen small
  bind {small} backlog 4096
  server one {idle}
"""
TUNING = "tune.pipesize 1048576"
OPTIONS = """option splice-request
  option splice-response
  option tcp-smart-connect
  option tcp-smart-accept"""
NGINX = """
{module}
worker_processes 1; daemon off; pid {dir}/proxy.pid; error_log {dir}/proxy.log;
worker_rlimit_nofile 100000;
events {{ worker_connections 32000; }}
stream {{ access_log off; proxy_timeout 600s;
  limit_conn_zone $binary_remote_addr zone=clients:1m; limit_conn_log_level info;
  server {{ listen {web} backlog=4096 reuseport; proxy_pass {backend}; }}
  server {{ listen {limited} backlog=4096 reuseport; proxy_pass {backend};
    limit_conn clients 1; }}
  server {{ listen {small} backlog=4096 reuseport; proxy_pass {idle}; }} }}
"""


def evenkeel(places, threads, spins):
    """evenkeel with its defaults, or waiting busily for a client that talks all the time."""
    return EVENKEEL.format(**places, threads=threads, tuning='spin = "50us"' if spins else "")


def haproxy(places, threads, tuned):
    """HAProxy with its defaults, or with what helps it forward without looking."""
    extra = {"tuning": TUNING if tuned else "", "options": OPTIONS if tuned else ""}
    return HAPROXY.format(**places, threads=threads, **extra)


def nginx(places, module):
    """nginx stream; `module` is the file of its stream module, if that is not built in."""
    return NGINX.format(**places, module=f"load_module {module};" if module else "")


def address(place):
    """An address in Envoy's words."""
    host, port = place.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def filter_of(name, kind, **settings):
    """A network filter in Envoy's words."""
    prefix = "type.googleapis.com/envoy.extensions.filters.network."
    settings = {"@type": prefix + kind, "stat_prefix": "bench", **settings}
    return {"name": f"envoy.filters.network.{name}", "typed_config": settings}


def envoy(places):
    """Envoy, three listeners of tcp_proxy. JSON is YAML, too."""
    forward, aside = (
        filter_of("tcp_proxy", "tcp_proxy.v3.TcpProxy", cluster=name, idle_timeout="600s")
        for name in ("web", "small")
    )
    # One bucket for all clients: Envoy has none for each client without a service of its own.
    limit = filter_of(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        token_bucket={"max_tokens": 1, "fill_interval": "3600s"},
    )
    listeners = [
        {
            "name": name,
            "address": address(places[name]),
            "tcp_backlog_size": 4096,
            "filter_chains": [{"filters": filters}],
        }
        for name, filters in (
            ("web", [forward]), ("limited", [limit, forward]), ("small", [aside])
        )
    ]
    most = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "3s",
            # Without this it stops at 1,024 connections.
            "circuit_breakers": {"thresholds": [most]},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(place)}}]}],
            },
        }
        for name, place in (("web", places["backend"]), ("small", places["idle"]))
    ]
    return json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})
