//! What a process calls itself where it works on a partition.

use uuid::Uuid;

use crate::settings::Role;

/// The most characters of the host's name: what a label of DNS may have.
const MAX_HOST_CHARS: usize = 63;

/// How many hexadecimal digits tell two processes apart that have the same host and the same number: in containers both may be.
const UNIQUE_CHARS: usize = 12;

/// The name of this process: its role, the host, its number there, and something that no other has. At most 100 characters, all of
/// them letters, digits, `-`, `.` or `_`.
pub(crate) fn owner(role: Role) -> String {
    named(role, &host(), std::process::id(), Uuid::new_v4())
}

/// The name of this machine, without what is odd in it.
#[cfg(feature = "cli")]
pub(crate) fn machine() -> String {
    plain(&host())
}

fn named(role: Role, host: &str, pid: u32, unique: Uuid) -> String {
    let host = plain(host);
    let unique: String = unique.simple().to_string();
    let unique: String = unique.chars().take(UNIQUE_CHARS).collect();
    format!("{}-{host}-{pid}-{unique}", role.name())
}

fn plain(host: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "-._".contains(c) => c,
        _ => '-',
    };
    let host: String = host
        .trim()
        .chars()
        .take(MAX_HOST_CHARS)
        .map(plain)
        .collect();
    match host.is_empty() {
        true => "unknown".to_owned(),
        false => host,
    }
}

/// The name of the host, as far as it can be had without asking the system: by Linux' own file, or by the environment.
fn host() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let variable = || {
        ["HOSTNAME", "COMPUTERNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok())
    };
    file.ok().or_else(variable).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_tells_role_host_and_process() {
        let unique = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let name = named(Role::EventBus, "node-7.example\n", 4711, unique);
        assert_eq!(name, "eventbus-node-7.example-4711-0123456789ab");
        let nameless = named(Role::All, " \n", 1, unique);
        assert_eq!(nameless, "all-unknown-1-0123456789ab");
    }

    #[test]
    fn an_owner_is_short_and_plain_whatever_the_host_is_called() {
        let host = "größe/\u{1b}[31m host ".repeat(100);
        let name = named(Role::EventBus, &host, u32::MAX, Uuid::new_v4());
        assert!(name.len() <= 100, "{name}");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        assert!(name.chars().all(is_plain), "{name}");
    }

    #[test]
    fn two_processes_never_have_the_same_name() {
        let role = Role::EventBus;
        assert_ne!(owner(role), owner(role));
        assert!(owner(role).contains(&format!("-{}-", std::process::id())));
    }
}
