//! How well passive ports can be guessed, from those that an FTP server was seen to choose (rule
//! D1; threat T4).
//!
//! With the guard on a guess is of no use. It says how the server fares without it, and whether
//! its range is large enough.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// How many ports are remembered of each FTP server.
const KEPT: usize = 512;
/// Fewer ports than these show nothing.
const ENOUGH: usize = 32;

/// The latest passive ports of each FTP server, by control port.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<u16, VecDeque<u16>>);

impl Seen {
    /// The FTP server at this control port listens on this data port.
    pub fn note(&mut self, control_port: u16, port: u16) {
        let ports = self.0.entry(control_port).or_default();
        if ports.len() == KEPT {
            ports.pop_front();
        }
        ports.push_back(port);
    }

    /// What was seen, oldest first.
    #[must_use]
    pub fn samples(&self, range_of: impl Fn(u16) -> Option<u32>) -> Vec<Sample> {
        self.0
            .iter()
            .map(|(control_port, ports)| Sample {
                control_port: *control_port,
                range: range_of(*control_port),
                ports: ports.iter().copied().collect(),
            })
            .collect()
    }
}

/// The passive ports of one FTP server, in the order of their use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its control port.
    pub control_port: u16,
    /// How many ports its declared ranges hold, `None` where none is declared.
    pub range: Option<u32>,
    /// The ports, oldest first.
    pub ports: Vec<u16>,
}

/// How well the ports of one FTP server can be guessed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictability {
    /// Its control port.
    pub control_port: u16,
    /// How many ports were seen.
    pub seen: usize,
    /// How many different ones.
    pub distinct: usize,
    /// How many it can choose from: the declared range, or what lies between the lowest and the
    /// highest that was seen.
    pub choices: u32,
    /// Shannon entropy of the choice, in bits, as far as so few ports can show it.
    pub entropy: f64,
    /// The most that so many ports from such a range can show.
    pub possible: f64,
    /// How often a port was the same as the one before.
    pub repeats: usize,
    /// Correlation of each port with the next, from -1 to 1; 0 for independent ones.
    pub correlation: f64,
    /// The share of even ports.
    pub even: f64,
    /// The commonest step from one port to the next, and its share.
    pub step: (i32, f64),
    /// What is wrong with it, for people; nothing where nothing is.
    pub weak: Vec<String>,
}

/// Measures a sample; `None` where too few ports were seen.
#[must_use]
pub fn measure(sample: &Sample) -> Option<Predictability> {
    let ports = &sample.ports;
    let (Some(lowest), Some(highest)) = (ports.iter().min(), ports.iter().max()) else {
        return None;
    };
    if ports.len() < ENOUGH {
        return None;
    }
    let spanned = u32::from(highest - lowest) + 1;
    let choices = sample.range.unwrap_or(spanned).max(1);
    let counts = count(ports.iter().copied());
    let steps = count(pairs(ports).map(|(one, next)| i32::from(next) - i32::from(one)));
    let (step, times) = steps
        .iter()
        .max_by_key(|(step, times)| (**times, -step.abs()))
        .map_or((0, 0), |(step, times)| (*step, *times));
    let seen = real(ports.len());
    let mut found = Predictability {
        control_port: sample.control_port,
        seen: ports.len(),
        distinct: counts.len(),
        choices,
        entropy: entropy(counts.values().copied(), seen),
        possible: seen.min(f64::from(choices)).log2(),
        repeats: pairs(ports).filter(|(one, next)| one == next).count(),
        correlation: correlation(ports),
        even: real(ports.iter().filter(|port| **port % 2 == 0).count()) / seen,
        step: (step, real(times) / (seen - 1.0)),
        weak: Vec::new(),
    };
    found.weak = found.weaknesses();
    Some(found)
}

impl Predictability {
    fn weaknesses(&self) -> Vec<String> {
        let mut weak = Vec::new();
        let choices = f64::from(self.choices);
        let seen = real(self.seen);
        let (step, share) = self.step;
        // By chance a step comes up as often as one port does.
        if step != 0 && share > 0.25 && share > 8.0 / choices {
            weak.push(format!(
                "{:.0} % of its ports are the one before {step:+}",
                share * 100.0
            ));
        }
        // Independent ports stay within four standard errors, 1/sqrt(n) each.
        if self.correlation.abs() > (4.0 / seen.sqrt()).max(0.3) {
            weak.push(format!(
                "each port tells about the next (correlation {:.2})",
                self.correlation
            ));
        }
        if choices >= 4.0 && !(0.15..=0.85).contains(&self.even) {
            weak.push(format!("{:.0} % of its ports are even", self.even * 100.0));
        }
        // So many different ports would independent choices show.
        let expected = choices * (1.0 - (1.0 - 1.0 / choices).powf(seen));
        if real(self.distinct) < 0.7 * expected {
            weak.push(format!(
                "it used {} different ports, and {expected:.0} were to be expected",
                self.distinct
            ));
        }
        if self.choices < 256 {
            weak.push(format!(
                "{} ports to choose from are tried in a moment; declare a larger range",
                self.choices
            ));
        }
        weak
    }
}

fn pairs(ports: &[u16]) -> impl Iterator<Item = (u16, u16)> {
    ports.iter().copied().zip(ports.iter().copied().skip(1))
}

fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

fn entropy(counts: impl Iterator<Item = usize>, total: f64) -> f64 {
    counts
        .map(|count| {
            let share = real(count) / total;
            -share * share.log2()
        })
        .sum()
}

/// Pearson's correlation of each port with its successor; 0 where all are the same.
fn correlation(ports: &[u16]) -> f64 {
    let pairs: Vec<(f64, f64)> = pairs(ports)
        .map(|(one, next)| (f64::from(one), f64::from(next)))
        .collect();
    let number = real(pairs.len());
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / number;
    let (first, second) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let (mut both, mut ones, mut others) = (0.0, 0.0, 0.0);
    for (one, next) in &pairs {
        both += (one - first) * (next - second);
        ones += (one - first).powi(2);
        others += (next - second).powi(2);
    }
    if ones == 0.0 || others == 0.0 {
        return 0.0;
    }
    both / (ones * others).sqrt()
}

/// A small count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
const fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ports: Vec<u16>) -> Sample {
        Sample {
            control_port: 21,
            range: Some(10_000),
            ports,
        }
    }

    /// Numbers without a pattern: a linear congruential generator's upper bits.
    fn noise(number: usize) -> Vec<u16> {
        let mut state = 1_u64;
        (0..number)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let upper = u16::try_from(state >> 48).expect("16 bits");
                50_000 + upper % 10_000
            })
            .collect()
    }

    fn weak(ports: Vec<u16>) -> Vec<String> {
        measure(&sample(ports)).expect("enough").weak
    }

    #[test]
    fn d1_good_ports_show_no_weakness() {
        let found = measure(&sample(noise(500))).expect("enough");
        assert_eq!(found.weak, Vec::<String>::new(), "{found:?}");
        assert!(
            found.entropy > 8.7 && found.entropy <= found.possible,
            "{found:?}"
        );
        assert!(found.correlation.abs() < 0.2 && (0.4..0.6).contains(&found.even));
    }

    #[test]
    fn d1_each_weakness_is_named() {
        // One after the other (many servers on the kernel's own choice).
        let sequential = weak((50_000..50_200).collect());
        assert!(
            sequential
                .iter()
                .any(|line| line.contains("the one before +1")),
            "{sequential:?}"
        );
        assert!(
            sequential
                .iter()
                .any(|line| line.contains("tells about the next"))
        );
        // Even ports only: the kernel's choice for connect() and bind() differs by parity.
        let even = weak(noise(500).into_iter().map(|port| port & !1).collect());
        assert_eq!(even, ["100 % of its ports are even"]);
        // A seed that comes back.
        let few = weak(noise(20).into_iter().cycle().take(500).collect());
        assert!(
            few.iter()
                .any(|line| line.contains("it used 20 different ports")),
            "{few:?}"
        );
        // A short range.
        let short = Sample {
            range: Some(32),
            ports: noise(500)
                .into_iter()
                .map(|port| 50_000 + port % 32)
                .collect(),
            control_port: 21,
        };
        let found = measure(&short).expect("enough");
        assert_eq!(
            found.weak,
            ["32 ports to choose from are tried in a moment; declare a larger range"]
        );
        // Nearly the same port again and again.
        let stuck = weak(vec![50_000; 100]);
        assert!(
            stuck
                .iter()
                .any(|line| line.contains("it used 1 different")),
            "{stuck:?}"
        );
    }

    #[test]
    fn few_ports_show_nothing_and_many_are_bounded() {
        assert_eq!(measure(&sample(noise(ENOUGH - 1))), None);
        assert_eq!(measure(&sample(Vec::new())), None);
        let mut seen = Seen::default();
        for port in noise(10 * KEPT) {
            seen.note(21, port);
        }
        seen.note(990, 50_000);
        let samples = seen.samples(|port| (port == 21).then_some(100));
        let shown: Vec<_> = samples
            .iter()
            .map(|sample| (sample.control_port, sample.range, sample.ports.len()))
            .collect();
        assert_eq!(shown, [(21, Some(100), KEPT), (990, None, 1)]);
    }
}
