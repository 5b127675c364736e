//! The command line, as types only; what each verb does is in the modules `main.rs` calls.

pub(crate) mod backends;
pub(crate) mod bans;
pub(crate) mod exit;
pub(crate) mod import;
pub(crate) mod offline;
pub(crate) mod remote;
pub(crate) mod sessions;
pub(crate) mod terminal;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel::config::{EventRate, pace};

/// The configuration file unless another is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/evenkeel/evenkeel.toml";

/// Shown below the help and in the man page.
const AFTER: &str = "\
Exit status: 0 done; 1 failed, or not ready, or an address cannot be listened on; 2 wrong usage; \
3 warnings with `check --strict`, or something that `import` has not carried over; 4 `--timeout` \
of `--wait` is over; 78 the configuration is refused.

Signals of `run`: TERM, INT, QUIT stop gracefully, a second one at once; HUP reloads; USR2 \
upgrades.";

/// A Layer-4 TCP load balancer for Linux.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, after_help = AFTER, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run in the foreground until told to stop.
    ///
    /// Example: `evenkeel run -c evenkeel.toml`
    Run(ConfigFile),
    /// Try it out: a load balancer with three backends of its own.
    ///
    /// Example: `evenkeel demo --for 5m`, then `curl http://127.0.0.1:8080/`
    Demo(Demo),
    /// Check a configuration file; opens no socket.
    ///
    /// Example: `evenkeel check -c evenkeel.toml --strict`
    Check(Check),
    /// Print the effective configuration, with all defaults filled in.
    ///
    /// Example: `evenkeel config -c evenkeel.toml`
    Config(ConfigFile),
    /// Print the JSON schema of the configuration file, for editors.
    ///
    /// Example: `evenkeel schema > evenkeel.schema.json`
    Schema,
    /// Print a configuration made of HAProxy's or nginx's; notes tell what is not in it.
    ///
    /// Examples: `evenkeel import haproxy haproxy.cfg > evenkeel.toml`,
    /// `evenkeel import nginx /etc/nginx/nginx.conf > evenkeel.toml`
    Import(ImportOptions),
    /// Make the running process read its file again; prints what changed, or why it was refused.
    ///
    /// Example: `evenkeel reload --dry-run candidate.toml`
    Reload(Reload),
    /// Replace the running program by another one while it serves; no connection is refused.
    ///
    /// Example: `evenkeel upgrade`, after a package has put the new program in place
    Upgrade(Upgrade),
    /// Show listeners, backends and workers, with their rates.
    ///
    /// Example: `evenkeel status --quiet && echo ready`
    Status {
        #[command(flatten)]
        target: Target,
        /// Print everything as JSON.
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
        /// Print nothing; the exit status tells whether the process is ready.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Tell where a client that connects now would go, and why.
    ///
    /// Example: `evenkeel explain web 192.0.2.7`
    Explain(Explain),
    /// Let backends keep their sessions but take no new ones; with `--reset`, end their sessions.
    ///
    /// Examples: `evenkeel drain web/10.0.0.1:80 --reset --pace 10/s`,
    /// `evenkeel drain 'web/10.0.1.*' --wait --timeout 10m`
    Drain(DrainOptions),
    /// Let backends serve again; with `--wait`, until they are up.
    ///
    /// Example: `evenkeel ready 'web/*' --wait --timeout 30s`
    Ready {
        #[command(flatten)]
        backends: SomeBackends,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Take backends out for maintenance: no new sessions, no probes.
    ///
    /// Example: `evenkeel maint web/10.0.0.1:80 web/10.0.0.2:80 --wait`
    Maint {
        #[command(flatten)]
        backends: SomeBackends,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Change the share of the sessions that backends get.
    ///
    /// Example: `evenkeel weight web/10.0.0.1:80 50`
    Weight {
        #[command(flatten)]
        backends: SomeBackends,
        #[command(flatten)]
        wait: WaitOptions,
        /// The new weight, 0 to 65535; 0 takes no new sessions.
        #[arg(value_name = "N", value_parser = weight, allow_negative_numbers = true)]
        weight: u16,
    },
    /// Drop what `drain`, `ready`, `maint` and `weight` have set for backends.
    ///
    /// Example: `evenkeel forget '*/*'`
    Forget(SomeBackends),
    /// List the sessions that are open, with both addresses of both connections.
    ///
    /// Example: `evenkeel sessions --backend 'web/10.0.0.*' --sort idle`
    Sessions(SessionList),
    /// End sessions: their peers see a reset.
    ///
    /// Examples: `evenkeel kill 4711`, `evenkeel kill --client 192.0.2.0/24 --pace 50/s`
    Kill(KillOptions),
    /// Turn the clients of networks away, at once and over reloads.
    ///
    /// Example: `evenkeel ban 192.0.2.0/24 --for 10m --reason "floods the login" --kill`
    Ban(BanOptions),
    /// Let clients that were banned connect again; those that were not are no error.
    ///
    /// Example: `evenkeel unban 192.0.2.0/24`
    Unban(UnbanOptions),
    /// List the bans that are in force, with their ends and reasons.
    ///
    /// Example: `evenkeel bans --json`
    Bans(BanListing),
    /// Print a completion script for a shell.
    ///
    /// Example: `evenkeel completions bash > /etc/bash_completion.d/evenkeel`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a verb, in roff.
    ///
    /// Example: `evenkeel man | man -l -`
    Man {
        /// The verb.
        verb: Option<String>,
    },
    /// Print the version.
    ///
    /// Example: `evenkeel version --json`
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file.
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "EVENKEEL_CONFIG",
        default_value = DEFAULT_FILE
    )]
    pub(crate) file: PathBuf,
}

/// `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Exit with 3 when there are warnings.
    #[arg(long)]
    pub(crate) strict: bool,
    /// How problems are shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How problems are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// The program that the file belongs to.
    #[arg(value_enum, value_name = "PROGRAM")]
    pub(crate) peer: ImportPeer,
    /// Its configuration file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Whose file is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportPeer {
    /// HAProxy.
    Haproxy,
    /// nginx: its `stream` block, with the files that it includes.
    Nginx,
}

/// Which process is meant.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Admin socket of the running process; without it, the configuration file names the socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Configuration file that names the admin socket; by default that of `run`, if it exists.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "EVENKEEL_CONFIG")]
    pub(crate) file: Option<PathBuf>,
}

/// `reload`.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only show what would change; new addresses are opened for a moment.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With `--dry-run`: a candidate, which the process judges instead of its own file.
    #[arg(value_name = "FILE", requires = "dry_run")]
    pub(crate) candidate: Option<PathBuf>,
}

/// `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The program to start; by default the file that the running one came from.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// How long it may take until it accepts, 1s to 4m; then the running one goes on.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = patience)]
    pub(crate) timeout: Duration,
    /// Leave the sessions with the old process, which drains.
    #[arg(long)]
    pub(crate) keep_sessions: bool,
}

/// Reads how long an upgrade may take.
fn patience(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(240);
    let time = evenkeel::config::units::duration(text)?;
    if bounds.contains(&time) { Ok(time) } else { Err("from 1s to 4m".to_owned()) }
}

/// `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The listener that the client would connect to.
    #[arg(value_name = "LISTENER")]
    pub(crate) listener: String,
    /// The client as the log shows it, with its port where the port is hashed; `unix` for a client
    /// of a Unix socket.
    #[arg(value_name = "CLIENT_IP[:PORT]")]
    pub(crate) client: String,
    /// The server name in its TLS hello.
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// Print everything as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Backends of a running process.
#[derive(Debug, Args)]
pub(crate) struct SomeBackends {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The backends; `*` and `?` stand for any text and any character of either name.
    #[arg(value_name = "POOL/BACKEND", value_parser = backend_name, required = true)]
    pub(crate) backends: Vec<BackendName>,
}

/// How a verb waits.
#[derive(Debug, Args)]
pub(crate) struct WaitOptions {
    /// Wait until it has come to its end: no session is left; after `ready`, the state is `up`.
    #[arg(long)]
    pub(crate) wait: bool,
    /// With `--wait`: for so long, such as 10m; then the exit status is 4.
    #[arg(
        long,
        value_name = "TIME",
        requires = "wait",
        value_parser = evenkeel::config::units::duration
    )]
    pub(crate) timeout: Option<Duration>,
}

/// `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainOptions {
    #[command(flatten)]
    pub(crate) backends: SomeBackends,
    #[command(flatten)]
    pub(crate) wait: WaitOptions,
    /// Reset their sessions, so that clients come back to other backends.
    #[arg(long)]
    pub(crate) reset: bool,
    /// With `--reset`: sessions to reset in a time, over all workers, those at rest first; all at
    /// once without it.
    #[arg(long, value_name = "N/s", requires = "reset", value_parser = pace)]
    pub(crate) pace: Option<EventRate>,
}

/// Which sessions are meant: those for which all that is given is so.
#[derive(Debug, Clone, Args)]
pub(crate) struct SessionsMeant {
    /// Sessions of a listener; `*` and `?` stand for any text and any character.
    #[arg(long, value_name = "LISTENER")]
    pub(crate) listener: Option<String>,
    /// Sessions that go to a pool; with `*` and `?`.
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// Sessions that have a place at a backend; with `*` and `?`.
    #[arg(long, value_name = "POOL/BACKEND")]
    pub(crate) backend: Option<String>,
    /// Sessions of clients in a network.
    #[arg(long, value_name = "CIDR")]
    pub(crate) client: Option<String>,
}

/// `sessions`.
#[derive(Debug, Args)]
pub(crate) struct SessionList {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) meant: SessionsMeant,
    /// What comes first: the oldest, the longest silent, what has moved most bytes, or what moves
    /// most bytes now.
    #[arg(long, value_enum, default_value_t = SessionSort::Age)]
    pub(crate) sort: SessionSort,
    /// Show at most as many; 0 shows all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub(crate) most: usize,
    /// Show them again every 2 s, until interrupted.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// Print everything as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What comes first in a list of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionSort {
    /// The oldest.
    Age,
    /// The longest silent.
    Idle,
    /// What has moved most bytes.
    Bytes,
    /// What moves most bytes now.
    Rate,
}

/// `kill`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("victims").required(true).multiple(true)
    .args(["ids", "listener", "pool", "backend", "client", "stop"])))]
pub(crate) struct KillOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Sessions by the id that `sessions` and the log give.
    #[arg(
        value_name = "ID",
        conflicts_with_all = ["listener", "pool", "backend", "client", "pace", "stop"]
    )]
    pub(crate) ids: Vec<u64>,
    #[command(flatten)]
    pub(crate) meant: SessionsMeant,
    /// Sessions to end in a time, over all workers, those at rest first; all at once without it.
    #[arg(long, value_name = "N/s", value_parser = pace)]
    pub(crate) pace: Option<EventRate>,
    /// Stop all kills that are still under way at their pace.
    #[arg(long, conflicts_with_all = ["listener", "pool", "backend", "client", "pace"])]
    pub(crate) stop: bool,
}

/// `ban`.
#[derive(Debug, Args)]
pub(crate) struct BanOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The networks, or addresses.
    #[arg(value_name = "CIDR", required = true)]
    pub(crate) networks: Vec<String>,
    /// For this long, such as 10m; without it, until they are unbanned or evenkeel ends.
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Why: shown by `bans`, and in the log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// End the sessions that these clients have, too; they stay without it.
    #[arg(long)]
    pub(crate) kill: bool,
}

/// `unban`.
#[derive(Debug, Args)]
pub(crate) struct UnbanOptions {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The networks, or addresses, as they were banned.
    #[arg(value_name = "CIDR", required_unless_present = "all")]
    pub(crate) networks: Vec<String>,
    /// All that are banned.
    #[arg(long, conflicts_with = "networks")]
    pub(crate) all: bool,
}

/// `bans`.
#[derive(Debug, Args)]
pub(crate) struct BanListing {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print everything as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `POOL/BACKEND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendName {
    pub(crate) pool: String,
    pub(crate) backend: String,
}

fn backend_name(text: &str) -> Result<BackendName, String> {
    match text.split_once('/') {
        Some((pool, backend)) if !pool.is_empty() && !backend.is_empty() => {
            Ok(BackendName { pool: pool.to_owned(), backend: backend.to_owned() })
        }
        _ => Err("expected the pool's and the backend's name, like web/10.0.0.1:80".to_owned()),
    }
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Port to accept on, on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Port of the admin page, on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 9900)]
    pub(crate) admin_port: u16,
    /// Stop after this long, such as 10s.
    #[arg(long = "for", value_name = "TIME", value_parser = evenkeel::config::units::duration)]
    pub(crate) stop_after: Option<Duration>,
}

/// Reads a weight.
fn weight(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "a weight is a whole number from 0 to 65535".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    // If this fails, some command line makes clap panic.
    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    // If this fails, a backend named by an IPv6 address cannot be drained.
    #[test]
    fn backends_are_named_by_pool_and_name() {
        let name = backend_name("web/[::1]:80").unwrap();
        assert_eq!((name.pool.as_str(), name.backend.as_str()), ("web", "[::1]:80"));
        assert!(backend_name("web").is_err());
        assert!(backend_name("web/").is_err());
    }
}
