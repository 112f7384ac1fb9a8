//! The figures, for people: each beside Postfix's and beside what is aimed at.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::scenario::{Figures, Scenario};

/// Prints what the figures are taken with.
pub fn surroundings(dir: &Path) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown processor", |(_, model)| model);
    // What else runs takes its part of the rates.
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = busy.split(' ').next().unwrap_or_default();
    println!("{cores} cores ({model}), shared by load generator, relay and endpoint; load average before: {busy}");
    println!("queue in {} ({})", dir.display(), file_system(dir));
}

/// The kind of file system that a folder is on, by the longest mount point above it.
fn file_system(dir: &Path) -> String {
    let (dir, mounts) = (dir.canonicalize().unwrap_or_default(), fs::read_to_string("/proc/mounts").unwrap_or_default());
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point)).max_by_key(|(point, _)| point.len());
    above.map_or_else(|| "unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}

/// Prints what a run gave.
pub fn figures(scenario: &Scenario, figures: &Figures) {
    let Figures { messages, sent, delivered_in, taken_rate, alone_rate, relay, others } = figures;
    let (reference, count) = (&scenario.reference, *messages as f64);
    println!(
        "\n({}) {}\n    {messages} messages of {} octets and {} recipient(s), {:.1} s; {} upstream connections over {} accounts",
        scenario.letter,
        scenario.title,
        scenario.size,
        scenario.recipients,
        delivered_in.as_secs_f64(),
        scenario.accounts * scenario.connections,
        scenario.accounts,
    );
    row("", "hve-relay", "Postfix", "ratio", "aim");
    rate("accepted/s", count / sent.accepted_in.as_secs_f64(), reference.accepted.map(|rate| (rate, rate)), reference.aim_accepted);
    let delivered = count / delivered_in.as_secs_f64();
    rate("delivered/s", delivered, reference.delivered, reference.aim_delivered);
    if let Some(ceiling) = scenario.ceiling() {
        let postfix = reference.delivered.map(|(_, most)| format!("{:.0} %", most / ceiling * 100.0)).unwrap_or_default();
        row(&format!("of {ceiling:.0}/s, the ceiling"), &format!("{:.1} %", delivered / ceiling * 100.0), &postfix, "", "≥ 95 %");
        row("once connected", &format!("{:.1} %", taken_rate / ceiling * 100.0), "", "", "");
        if let Some(rate) = alone_rate {
            row("once all was accepted", &format!("{:.1} %", rate / ceiling * 100.0), "", "", "");
        }
    }
    let wait = |share: f64| sent.waits.get((sent.waits.len() as f64 * share) as usize).copied().map_or(0.0, millis);
    let (p50, p99) = (wait(0.50), wait(0.99));
    let pair = |(p50, p99): (f64, f64)| format!("{p50:.0} / {p99:.0}");
    let ratio = reference.p50_p99.map(|(r50, r99)| format!("{:.2} / {:.2}", p50 / r50, p99 / r99)).unwrap_or_default();
    let aim = reference.aim_p50_p99.map(|aim| format!("≤ {}", pair(aim))).unwrap_or_default();
    let postfix = reference.p50_p99.map(pair).unwrap_or_default();
    row("250 after DATA, p50/p99 ms", &format!("{p50:.1} / {p99:.1}"), &postfix, &ratio, &aim);
    let cpu = millis(relay.processor) / count;
    let aim = reference.aim_cpu.map(|aim| format!("≤ {aim}")).unwrap_or_default();
    let (postfix, ratio) = match reference.aim_cpu {
        Some(_) => ("3.0–3.4".to_owned(), format!("{:.2}", cpu / 3.2)),
        None => Default::default(),
    };
    row("CPU ms/message", &format!("{cpu:.3}"), &postfix, &ratio, &aim);
    row("peak memory, MiB", &format!("{:.1}", relay.peak as f64 / 1024.0), "120–170", "", "< 60");
    row("resident at the end, MiB", &format!("{:.1}", relay.resident as f64 / 1024.0), "", "", "");
    row("load + sink, CPU ms/msg", &format!("{:.3}", millis(*others) / count), "", "", "");
}

fn rate(name: &str, rate: f64, postfix: Option<(f64, f64)>, aim: Option<f64>) {
    let reference = match postfix {
        Some((least, most)) if least < most => format!("{least:.0}–{most:.0}"),
        Some((rate, _)) => format!("{rate:.0}"),
        None => String::new(),
    };
    let ratio = postfix.map(|(_, most)| format!("{:.1}×", rate / most)).unwrap_or_default();
    let aim = aim.map(|aim| format!("≥ {aim:.0}")).unwrap_or_default();
    row(name, &format!("{rate:.0}"), &reference, &ratio, &aim);
}

fn row(name: &str, ours: &str, postfix: &str, ratio: &str, aim: &str) {
    println!("    {name:<27}{ours:>12}{postfix:>12}{ratio:>14}{aim:>10}");
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
