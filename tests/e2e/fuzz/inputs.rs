//! Inputs out of examples: parts of them put together, words of the language put in, bytes changed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The most bytes of an input.
const MAX_BYTES: usize = 16 * 1024;

/// How often an input is changed, at most.
const MAX_CHANGES: usize = 6;

/// What any parser may trip over.
const EVIL: &[&str] = &[
    "\0",
    "\r\n",
    "\n",
    "\t",
    "%",
    "%00",
    "%0a",
    "%ff",
    "%2e%2e%2f",
    "..",
    "/",
    "\\",
    "'",
    "\"",
    ";",
    "--",
    "[",
    "]",
    "[]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "&",
    "+",
    "*",
    "$",
    "$ne",
    "$where",
    ".$",
    "__proto__",
    "é",
    "\u{202e}",
    "\u{0}",
    "\u{fffd}",
    "𝄞",
    "-",
    "-0",
    "0",
    "1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e999",
    "-1e-999",
    "NaN",
    "1.5",
    "true",
    "null",
    "(a+)+$",
    "W/",
    "\"\"",
    "0x10",
    "2026-02-30T25:61:61Z",
    "+275760-09-13T00:00:00Z",
];

/// Something that reads bytes: what it is called, and what it understands.
#[derive(Clone)]
pub(super) struct Target {
    /// Its name.
    pub(super) name: &'static str,
    /// What is understood as it is.
    pub(super) examples: &'static [&'static str],
    /// What is not, but nearly.
    pub(super) near: &'static [&'static str],
    /// What the language has for words.
    pub(super) words: &'static [&'static str],
}

impl Target {
    /// The input of this seed.
    pub(super) fn input(&self, seed: u64) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut input = self.beginning(&mut random);
        // Few changes, mostly: what is far from any example is refused at its first byte.
        let most = random.random_range(0..=MAX_CHANGES);
        for _ in 0..random.random_range(0..=most) {
            self.change(&mut input, &mut random);
        }
        input.truncate(MAX_BYTES);
        input
    }

    /// An example, the one half of an example and the other of another, or nothing.
    fn beginning(&self, random: &mut StdRng) -> Vec<u8> {
        let all = [self.examples, self.near].concat();
        let mut one = || all.choose(random).unwrap_or(&"").as_bytes();
        let (first, second) = (one(), one());
        match random.random_range(0..8) {
            0 => Vec::new(),
            1 | 2 => {
                let (end, begin) = (place(first, random), place(second, random));
                [&first[..end], &second[begin..]].concat()
            }
            _ => first.to_vec(),
        }
    }

    fn change(&self, input: &mut Vec<u8>, random: &mut StdRng) {
        let at = place(input, random);
        let end = at + random.random_range(0..=(input.len() - at).min(16));
        match random.random_range(0..8) {
            0 => drop(input.drain(at..end)),
            1 => {
                let part = input[at..end].to_vec();
                let times = [1, 2, 40, 400].choose(random).copied().unwrap_or(1);
                let part = part.repeat(times);
                drop(input.splice(end..end, part));
            }
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            3 => {
                let byte = random.random::<u8>();
                input.insert(at, byte);
            }
            4 => {
                let bytes: Vec<u8> = (0..random.random_range(1..24))
                    .map(|_| random.random())
                    .collect();
                drop(input.splice(at..end, bytes));
            }
            n => {
                let words = if n == 5 { EVIL } else { self.words };
                let word = words.choose(random).unwrap_or(&"").bytes();
                // In the place of something, or between.
                let end = if random.random() { at } else { end };
                drop(input.splice(at..end, word));
            }
        }
    }
}

/// Some place in `bytes`, their end included.
fn place(bytes: &[u8], random: &mut StdRng) -> usize {
    random.random_range(0..=bytes.len())
}

#[test]
fn a_seed_makes_the_same_input_each_time_and_another_one_another() {
    let target = Target {
        name: "test",
        examples: &["one=two&three", "four"],
        near: &["=&"],
        words: &["="],
    };
    let inputs: std::collections::BTreeSet<_> = (0..1_000).map(|seed| target.input(seed)).collect();
    assert!(inputs.len() > 500, "{}", inputs.len());
    assert!((0..1_000).all(|seed| target.input(seed) == target.input(seed)));
}
