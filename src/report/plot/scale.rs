//! Axes: from quantities to pixels, and the round values at which ticks stand.

/// What an axis counts, and how its ticks are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A base unit that takes decimal prefixes: `s`, `J`, `B/s`, `MAC/s`.
    Prefixed(&'static str),
    /// A factor, written `1.5×`.
    Factor,
    /// A fraction, written in percent.
    Percent,
    /// A bare number; its unit, if any, stands in the axis' label.
    Plain,
}

impl Unit {
    /// A value in words, three digits.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Prefixed(unit) => {
                let (scale, prefix) = prefix(value);
                format!("{} {prefix}{unit}", digits(value / scale))
            }
            Self::Factor => format!("{}×", digits(value)),
            Self::Percent => format!("{} %", digits(100.0 * value)),
            Self::Plain => digits(value),
        }
    }
}

/// The decimal prefix under which a value has one to three digits before the point.
fn prefix(value: f64) -> (f64, &'static str) {
    const PREFIXES: [(f64, &str); 11] = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
        (1e-12, "p"),
    ];
    // Slightly less than the prefix itself still rounds to it.
    let fits = |p: &&(f64, &str)| value.abs() >= p.0 * (1.0 - 1e-9);
    if value == 0.0 { (1.0, "") } else { *PREFIXES.iter().find(fits).unwrap_or(&PREFIXES[10]) }
}

/// Three significant digits, without trailing zeros.
fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// An axis as a figure asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with the unit where ticks do not carry it.
    pub label: String,
    /// How ticks are written.
    pub unit: Unit,
    /// Whether equal distances are equal factors. Values that are not positive are then left out.
    pub log: bool,
}

impl Axis {
    /// An axis on which equal distances are equal differences.
    pub fn linear(label: impl Into<String>, unit: Unit) -> Self {
        Self { label: label.into(), unit, log: false }
    }

    /// An axis on which equal distances are equal factors.
    pub fn log(label: impl Into<String>, unit: Unit) -> Self {
        Self { label: label.into(), unit, log: true }
    }
}

/// A tick; without a label it is a faint line between two that have one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// Where.
    pub value: f64,
    /// What is written there.
    pub label: Option<String>,
}

/// From values to pixels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// Least and greatest of the values that an axis can show.
pub(super) fn extent(axis: &Axis, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let shown = values.filter(|v| v.is_finite() && (!axis.log || *v > 0.0));
    let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    match (low <= high, axis.log) {
        (true, _) => (low, high),
        (false, true) => (0.1, 10.0),
        (false, false) => (0.0, 1.0),
    }
}

impl Scale {
    /// A scale over values with a little air; a linear one whose values lie near zero begins there.
    pub fn new(axis: &Axis, (low, high): (f64, f64), from: f64, to: f64) -> Self {
        let (low, high) = if axis.log {
            let air = ((high / low).ln() * 0.05).max(0.06).exp();
            (low / air, high * air)
        } else {
            let low = if low >= 0.0 && low < 0.4 * high { 0.0 } else { low };
            let high = if high > low { high } else { low + 1.0 };
            let step = step(high - low);
            let low = (low / step + 1e-9).floor() * step;
            (low, low + ((high - low) / step - 1e-9).ceil() * step)
        };
        Self { log: axis.log, low, high, from, to }
    }

    /// A scale that spans exactly these values.
    #[cfg(test)]
    fn exact(axis: &Axis, (low, high): (f64, f64), from: f64, to: f64) -> Self {
        Self { log: axis.log, low, high, from, to }
    }

    /// The same scale over other pixels.
    pub fn over(&self, from: f64, to: f64) -> Self {
        Self { from, to, ..self.clone() }
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + place * (self.to - self.from)
    }

    /// Least and greatest value shown.
    pub fn range(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Ticks, at most about `most` with a label.
    pub fn ticks(&self, unit: Unit, most: usize) -> Vec<Tick> {
        if self.log { self.log_ticks(unit, most) } else { self.linear_ticks(unit, most) }
    }

    fn linear_ticks(&self, unit: Unit, most: usize) -> Vec<Tick> {
        let mut step = step(self.high - self.low);
        while (self.high - self.low) / step > most.max(2) as f64 {
            step *= 2.0;
        }
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        // One prefix for the whole axis: 0.5 ms and 1 ms, not 500 µs and 1 ms.
        let (scale, prefix) = prefix(self.low.abs().max(self.high.abs()));
        let show = |v: f64| match unit {
            Unit::Prefixed(unit) if v != 0.0 => format!("{} {prefix}{unit}", digits(v / scale)),
            Unit::Prefixed(_) => "0".into(),
            _ => unit.show(v),
        };
        (first..=last).map(|i| i as f64 * step).map(|value| Tick { value, label: Some(show(value)) }).collect()
    }

    fn log_ticks(&self, unit: Unit, most: usize) -> Vec<Tick> {
        let decades = (self.high / self.low).log10();
        if decades < 0.7 {
            let linear = Self { log: false, ..self.clone() };
            let ticks = linear.linear_ticks(unit, most);
            return ticks.into_iter().filter(|t| t.value >= self.low).collect();
        }
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let every = ((decades / most as f64).ceil() as i32).max(1);
        let labelled: &[u32] = match decades {
            d if d * 3.0 <= most as f64 + 1.0 => &[1, 2, 5],
            d if d * 2.0 <= most as f64 + 1.0 => &[1, 3],
            _ => &[1],
        };
        let mut ticks = Vec::new();
        for decade in first..=last {
            for mantissa in 1..10u32 {
                // Powers as text: 10f64.powi(-6) is not the nearest number to 1e-6.
                let value: f64 = format!("{mantissa}e{decade}").parse().unwrap_or(f64::NAN);
                if !(value >= self.low * (1.0 - 1e-9) && value <= self.high * (1.0 + 1e-9)) {
                    continue;
                }
                let with = labelled.contains(&mantissa) && decade.rem_euclid(every) == 0;
                if with || (every == 1 && decades <= 6.0) {
                    ticks.push(Tick { value, label: with.then(|| unit.show(value)) });
                }
            }
        }
        ticks
    }
}

/// A round step that divides a range into four to ten.
fn step(range: f64) -> f64 {
    let raw = range / 6.0;
    let decade = 10f64.powf(raw.log10().floor());
    let rest = raw / decade;
    decade
        * if rest < 1.5 {
            1.0
        } else if rest < 2.3 {
            2.0
        } else if rest < 3.5 {
            2.5
        } else if rest < 7.5 {
            5.0
        } else {
            10.0
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, range: (f64, f64), most: usize) -> Vec<String> {
        Scale::exact(axis, range, 0.0, 100.0).ticks(axis.unit, most).into_iter().filter_map(|t| t.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        let time = Axis::log("time", Unit::Prefixed("s"));
        assert_eq!(
            labels(&time, (1e-6, 1e-2), 8),
            ["1 µs", "3 µs", "10 µs", "30 µs", "100 µs", "300 µs", "1 ms", "3 ms", "10 ms"]
        );
        let speedup = Axis::log("speedup", Unit::Factor);
        assert_eq!(labels(&speedup, (0.45, 11.0), 8), ["0.5×", "1×", "2×", "5×", "10×"]);
        let linear = Axis::linear("time", Unit::Prefixed("s"));
        assert_eq!(
            labels(&linear, (0.0, 1.5e-3), 8),
            ["0", "0.25 ms", "0.5 ms", "0.75 ms", "1 ms", "1.25 ms", "1.5 ms"]
        );
    }

    #[test]
    fn a_scale_maps_its_ends() {
        let axis = Axis::log("x", Unit::Plain);
        let scale = Scale::exact(&axis, (1.0, 100.0), 10.0, 210.0);
        assert!((scale.at(10.0) - 110.0).abs() < 1e-9);
        assert!((scale.at(1.0) - 10.0).abs() < 1e-9 && (scale.at(100.0) - 210.0).abs() < 1e-9);
    }
}
