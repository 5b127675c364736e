//! Parses arguments, calls the verb, prints what failed, chooses the exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use evenkeel::control::demo::{DemoOptions, demo};
use evenkeel::control::{RunError, RunOptions, Served, run};

use cli::backends::{BackendRequest, WaitEnd};
use cli::remote::Manner;
use cli::terminal::{complain, fail, say};
use cli::{Cli, Demo, Verb, backends, bans, exit, import, offline, remote, sessions, terminal};

fn main() -> ExitCode {
    abort_on_panic();
    terminal::unless_lost(perform(Cli::parse().verb))
}

fn perform(verb: Verb) -> ExitCode {
    match verb {
        Verb::Run(config) => {
            let file = config.file;
            end(run(&RunOptions {
                file,
                can_be_replaced: true,
                stop_after: None,
                on_ready: |_| {},
            }))
        }
        Verb::Demo(options) => show(&options),
        Verb::Check(options) => offline::check(&options),
        Verb::Config(config) => offline::effective(&config),
        Verb::Schema => offline::schema(),
        Verb::Import(options) => import::import(&options),
        Verb::Reload(options) => remote::reload(&options),
        Verb::Upgrade(options) => remote::upgrade(&options),
        Verb::Status { target, json, quiet } => {
            let manner = match (json, quiet) {
                (_, true) => Manner::Quiet,
                (true, false) => Manner::Json,
                (false, false) => Manner::Text,
            };
            remote::status(&target, manner)
        }
        Verb::Explain(question) => remote::explain(&question),
        Verb::Drain(options) => backends::drain(&options),
        Verb::Ready { backends, wait } => backends::perform(
            &backends,
            &BackendRequest::plain("ready"),
            Some((&wait, WaitEnd::Up)),
        ),
        Verb::Maint { backends, wait } => backends::perform(
            &backends,
            &BackendRequest::plain("maint"),
            Some((&wait, WaitEnd::Empty)),
        ),
        Verb::Weight { backends, wait, weight } => {
            let body = format!("{{\"weight\": {weight}}}");
            let request = BackendRequest { verb: "weight", body };
            backends::perform(&backends, &request, Some((&wait, WaitEnd::Empty)))
        }
        Verb::Forget(backends) => {
            backends::perform(&backends, &BackendRequest::plain("forget"), None)
        }
        Verb::Sessions(options) => sessions::list(&options),
        Verb::Kill(options) => sessions::kill(&options),
        Verb::Ban(options) => bans::ban(&options),
        Verb::Unban(options) => bans::unban(&options),
        Verb::Bans(options) => bans::list(&options),
        Verb::Completions { shell } => offline::completions(shell),
        Verb::Man { verb } => offline::man(verb.as_deref()),
        Verb::Version { json } => offline::version(json),
    }
}

/// A thread that panics leaves its sessions in an unknown state, and a worker that is gone swallows
/// its share of the connections: the process ends, and the service manager starts it anew.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let text = format!("evenkeel: thread {name} {panic}\nevenkeel: this is a bug; aborting\n");
        terminal::complain_and_go(&text);
        std::process::abort();
    }));
}

fn end(outcome: Result<(), RunError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(problems)) => {
            complain(&problems);
            fail("the configuration is refused", "`evenkeel check -c FILE` shows every problem");
            ExitCode::from(exit::BAD_CONFIG)
        }
        Err(RunError::Host { text, .. }) => {
            complain(&text);
            fail(
                "this host does not let evenkeel listen where the configuration says",
                "the file may be right and the address free or here later: the systemd unit tries \
                 again",
            );
            ExitCode::FAILURE
        }
        Err(failed @ RunError::Failed { .. }) => {
            fail(failed, "");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Demo) -> ExitCode {
    let Demo { port, admin_port, stop_after } = *options;
    end(demo(DemoOptions { port, admin_port, stop_after, on_ready: what_to_try }))
}

/// Told once the demonstration serves.
fn what_to_try(served: &Served) {
    let file = served.file.display();
    let socket = served.admin.socket.as_deref().unwrap_or("-");
    let first = served.listeners.first().map(ToString::to_string).unwrap_or_default();
    let page = served.admin.http.map(|http| format!("http://{http}/")).unwrap_or_default();
    say(format_args!(
        "\nThree backends (red, green, blue) behind http://{first}/\n\n\
         Try:\n  \
         curl http://{first}/                  again and again: they take turns\n  \
         evenkeel status --socket {socket}\n  \
         evenkeel drain colours/green --socket {socket}\n  \
         evenkeel explain web 127.0.0.1 --socket {socket}\n  \
         evenkeel ready colours/green --socket {socket}\n  \
         edit {file}, then\n  \
         evenkeel reload --socket {socket}\n\n\
         Look at {page} and {page}metrics. Ctrl-C stops it.\n\n"
    ));
}
