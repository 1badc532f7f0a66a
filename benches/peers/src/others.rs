//! How busy other programs kept the machine during a run: a figure that was taken beside a build is worth little.

use std::fs::read_to_string;

/// The work of the machine so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Of all cores, at work or not.
    all: u64,
    /// At work.
    busy: u64,
    /// At work for the benchmark and its server.
    own: u64,
}

impl Work {
    /// Up to now, where `server` is the process of the server.
    pub(crate) fn so_far(server: Option<u32>) -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let cpu = numbers(stat.lines().next().unwrap_or_default());
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in user already.
        let all: u64 = cpu.iter().take(8).sum();
        let idle: u64 = cpu.iter().skip(3).take(2).sum();
        let server = server.map_or(0, |id| of_process(&id.to_string()));
        Self {
            all,
            busy: all - idle,
            own: of_process("self") + server,
        }
    }

    /// Which part of the cores' time others have taken since `before`, from 0 to 1.
    pub(crate) fn others_since(self, before: Self) -> f64 {
        let busy = self.busy.saturating_sub(before.busy);
        let own = self.own.saturating_sub(before.own);
        let all = self.all.saturating_sub(before.all).max(1);
        busy.saturating_sub(own) as f64 / all as f64
    }
}

/// The ticks of a process, in user and in system mode.
fn of_process(id: &str) -> u64 {
    let stat = read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name comes second, in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// The numbers of a line, after its name.
fn numbers(line: &str) -> Vec<u64> {
    let fields = line.split_whitespace().skip(1);
    fields.filter_map(|field| field.parse().ok()).collect()
}
