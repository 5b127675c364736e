//! Verbs about clients that are banned: `ban`, `unban`, `bans`.

use std::process::ExitCode;

use evenkeel::control::admin::ban_list::{BanList, render};
use evenkeel::control::admin::client;
use serde_json::json;

use crate::cli::remote::{OK, Obeyed, VerbFailure, pretty, socket};
use crate::cli::terminal::{complain, say, stdout_has_colour};
use crate::cli::{BanListing, BanOptions, UnbanOptions};

/// `ban`.
pub(crate) fn ban(options: &BanOptions) -> ExitCode {
    let BanOptions { target, networks, time, reason, kill } = options;
    let one = |network: &String| {
        let mut ban = json!({ "network": network });
        if let Some(time) = time {
            ban["for"] = time.as_str().into();
        }
        if let Some(reason) = reason {
            ban["reason"] = reason.as_str().into();
        }
        ban
    };
    let bans: Vec<_> = networks.iter().map(one).collect();
    let body = json!({ "bans": bans, "kill": kill }).to_string();
    let told = || -> Result<(), VerbFailure> {
        Obeyed::of(client::request(&socket(target)?, "POST", "/v1/bans", body)?)?.tell();
        Ok(())
    };
    end(told())
}

/// `unban`.
pub(crate) fn unban(options: &UnbanOptions) -> ExitCode {
    let UnbanOptions { target, networks, all } = options;
    let told = || -> Result<(), VerbFailure> {
        let socket = socket(target)?;
        if *all {
            Obeyed::of(client::request(&socket, "DELETE", "/v1/bans", String::new())?)?.tell();
        }
        for network in networks {
            let path = client::ban_path(network);
            Obeyed::of(client::request(&socket, "DELETE", &path, String::new())?)?.tell();
        }
        Ok(())
    };
    end(told())
}

/// `bans`.
pub(crate) fn list(options: &BanListing) -> ExitCode {
    let told = || -> Result<(), VerbFailure> {
        let answer = client::request(&socket(&options.target)?, "GET", "/v1/bans", String::new())?;
        match serde_json::from_str::<BanList>(&answer.body) {
            Ok(_) if answer.code == OK && options.json => {
                say(format_args!("{}\n", pretty(&answer.body)));
            }
            Ok(list) if answer.code == OK => {
                say(render(&list, stdout_has_colour()));
                if list.bans.is_empty() {
                    complain("no client is banned\n");
                }
            }
            _ => return Err(VerbFailure::Answered(answer)),
        }
        Ok(())
    };
    end(told())
}

fn end(outcome: Result<(), VerbFailure>) -> ExitCode {
    outcome.map_or_else(VerbFailure::tell, |()| ExitCode::SUCCESS)
}
