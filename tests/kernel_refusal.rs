//! Where the kernel does not refuse clients over their rate, workers do, and say why; that it does
//! is seen in tests/netns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use support::admin::is_same;
use support::verbs::{code, text};
use support::{Backend, Proxy, Setup, connect_from};

/// A listener with this limit, and its backend, which serves until it is dropped.
fn limited(limit: &str) -> (Backend, Setup) {
    let backend = Backend::named("hello");
    let setup = Setup::of(&[&backend]).limit(limit);
    (backend, setup)
}

/// Whether this process, and so its children, may load programs.
fn may_load_programs() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    effective >> 39 & 1 == 1 || effective >> 21 & 1 == 1
}

/// Where the clients of the only limit are refused, and why.
fn refused_by(proxy: &Proxy) -> (String, String) {
    let status = proxy.status();
    let limit = status.listeners["front"].limits.values().next().unwrap();
    (limit.refused_by.clone(), limit.why.clone())
}

// If this fails, the kernel answers where the file wants an answer, or another client, or no
// refusal.
#[test]
fn what_the_kernel_cannot_do_is_left_to_workers() {
    let cases = [
        ("rate = \"1/h\"\nkernel_refusal = \"off\"", "`kernel_refusal` is \"off\""),
        ("rate = \"1/h\"\naction = \"tarpit\"", "its `action` is \"tarpit\""),
        ("rate = \"1/h\"\nmode = \"observe\"", "it only observes"),
        ("max_concurrent = 1", "it has no `rate`"),
        ("rate = \"1/h\"\nkey = { v4 = 16 }\nexempt = [\"127.0.0.2\"]", "`exempt` has a network"),
    ];
    for (limit, why) in cases {
        let (_backend, setup) = limited(limit);
        let proxy = setup.start();
        let (who, said) = refused_by(&proxy);
        assert_eq!(who, "workers", "{limit}");
        assert!(said.contains(why), "{said}");
    }
}

/// The command without the capability to load programs.
fn without_capability(config: &str) -> (tempfile::TempDir, Command) {
    let (directory, plain) = Proxy::command(config);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"]);
    command.arg(plain.get_program()).args(plain.get_args());
    (directory, command)
}

// If this fails, a service without the capability does not start, limits nothing, or leaves an
// operator without a reason.
#[test]
fn without_the_capability_workers_refuse_and_say_so() {
    let (_backend, setup) = limited("rate = \"2/h\"");
    let setup = setup.listener("deny = [\"127.0.0.9\"]");
    let (directory, command) = match may_load_programs() {
        true => without_capability(&setup.text()),
        false => Proxy::command(&setup.text()),
    };
    let mut proxy = Proxy::spawn(directory, command);
    proxy.wait_until_serving();
    let is_served_from = |host| {
        let source = (IpAddr::from(Ipv4Addr::new(127, 0, 0, host)), 0);
        let client = connect_from(source, proxy.address());
        // A refusal is a reset, which may come as early as the connect.
        client.is_ok_and(|mut client| client.read(&mut [0]).is_ok_and(|read| read == 1))
    };
    let is_served = || is_served_from(2);
    assert_eq!((0..5).filter(|_| is_served()).count(), 2);
    let refused = proxy.metric("evenkeel_listener_refused_total", &[("reason", "limit")]);
    assert!(is_same(refused, 3.0), "{refused}");
    assert!(is_same(proxy.metric("evenkeel_limit_kernel_refusals_total", &[]), 0.0));
    assert_eq!(refused_by(&proxy), ("workers".into(), "this process has no CAP_BPF".into()));
    assert!(!is_served_from(9));
    let refused = proxy.metric("evenkeel_listener_refused_total", &[("reason", "access")]);
    assert!(is_same(refused, 1.0), "{refused}");
    let access = proxy.status().listeners["front"].access.clone();
    assert_eq!((&*access.refused_by, &*access.why), ("workers", "this process has no CAP_BPF"));
    // A reload that requires it is refused, and changes nothing.
    let required = setup.text().replace("rate = ", "kernel_refusal = \"require\"\nrate = ");
    proxy.rewrite(&required);
    let refused = proxy.reload();
    let said = text(&refused.stderr);
    assert_ne!(code(&refused), 0);
    assert!(said.contains("the kernel cannot refuse for the limit `default`"), "{said}");
    assert!(said.contains("this process has no CAP_BPF"), "{said}");
    assert!(!is_served());
}

// If this fails, a service that promises to cost nothing in a flood starts and costs.
#[test]
fn a_start_that_requires_the_kernel_fails_without_the_capability() {
    let (_backend, setup) = limited("rate = \"2/h\"\nkernel_refusal = \"require\"");
    let (_directory, mut command) = match may_load_programs() {
        true => without_capability(&setup.text()),
        false => Proxy::command(&setup.text()),
    };
    let failed = command.output().unwrap();
    let said = text(&failed.stderr);
    assert!(!failed.status.success());
    assert!(said.contains("listener.front.limit.kernel_refusal") || said.contains("require"));
    assert!(said.contains("this process has no CAP_BPF"), "{said}");
    assert!(said.contains("CAP_BPF, and let it call bpf(2)"), "{said}");
}
