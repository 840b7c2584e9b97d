//! What the node tells about itself: counters and gauges by name, filled by whichever room has something to count.
//!
//! A room asks the [`Registry`] for a [`Counter`] once and keeps it; counting is then one relaxed addition. The
//! status page and the Prometheus endpoint read the registry, so a new counter shows up in both without either
//! knowing of it. Labels are `&'static str`: nothing a stranger sends can become a series.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The family of everything that was dropped because a bound was reached, by cause.
pub const DROPS: &str = "drops";
/// The family of peers that were refused, by cause.
pub const REFUSED_PEERS: &str = "refused_peers";

/// A number that only grows. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Cheap to clone; all clones are the same gauge.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to the value.
    pub fn rise(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes from the value what was added before.
    pub fn fall(&self, amount: u64) {
        let before = self.0.fetch_sub(amount, Ordering::Relaxed);
        assert!(before >= amount, "a gauge fell below nothing");
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Reading = Arc<dyn Fn() -> u64 + Send + Sync>;
type Readings = Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

enum Series {
    Counter(Counter),
    /// Counters that differ by their cause.
    Counters(BTreeMap<&'static str, Counter>),
    Gauge(Gauge),
    /// A gauge somebody else keeps, read when asked.
    Reading(Reading),
    /// Several of them, by what they count.
    Readings(Readings),
}

struct Family {
    help: &'static str,
    series: Series,
}

/// All counters and gauges of the node, by name.
///
/// Asking twice for one name gives the same counter; asking for one name as two different things is a mistake in
/// this program and panics.
#[derive(Clone, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.families().keys()).finish()
    }
}

impl Registry {
    /// The counter of this name.
    ///
    /// # Panics
    /// If the name is already something else.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let mut families = self.families();
        let family =
            families.entry(name).or_insert_with(|| Family { help, series: Series::Counter(Counter::default()) });
        match &family.series {
            Series::Counter(counter) => counter.clone(),
            _ => panic!("{name} is not a plain counter"),
        }
    }

    /// The counter of this name and cause.
    ///
    /// # Panics
    /// If the name is already something else.
    #[must_use]
    pub fn counter_by(&self, name: &'static str, help: &'static str, cause: &'static str) -> Counter {
        let mut families = self.families();
        let family = families.entry(name).or_insert_with(|| Family { help, series: Series::Counters(BTreeMap::new()) });
        match &mut family.series {
            Series::Counters(counters) => counters.entry(cause).or_default().clone(),
            _ => panic!("{name} does not count by cause"),
        }
    }

    /// The counter of what is dropped for this cause.
    #[must_use]
    pub fn drops(&self, cause: &'static str) -> Counter {
        self.counter_by(DROPS, "dropped because a bound was reached, by cause", cause)
    }

    /// The gauge of this name.
    ///
    /// # Panics
    /// If the name is already something else.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let mut families = self.families();
        let family = families.entry(name).or_insert_with(|| Family { help, series: Series::Gauge(Gauge::default()) });
        match &family.series {
            Series::Gauge(gauge) => gauge.clone(),
            _ => panic!("{name} is not a plain gauge"),
        }
    }

    /// Registers (or replaces) a gauge that is read from its owner whenever somebody looks.
    pub fn reading(&self, name: &'static str, help: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.families().insert(name, Family { help, series: Series::Reading(Arc::new(read)) });
    }

    /// Registers (or replaces) gauges of one name that differ by what they count, read whenever somebody looks.
    pub fn readings(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) {
        self.families().insert(name, Family { help, series: Series::Readings(Arc::new(read)) });
    }

    /// All values: a number for a plain name, an object for a name that counts by cause.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let value = |family: &Family| match &family.series {
            Series::Counter(counter) => json!(counter.get()),
            Series::Counters(counters) => counters.iter().map(|(cause, c)| (*cause, json!(c.get()))).collect(),
            Series::Gauge(gauge) => json!(gauge.get()),
            Series::Reading(read) => json!(read()),
            Series::Readings(read) => read().into_iter().map(|(what, value)| (what, json!(value))).collect(),
        };
        self.families().iter().map(|(name, family)| ((*name).to_owned(), value(family))).collect()
    }

    /// All values in the OpenMetrics text format, every name with the prefix `epost_`.
    #[must_use]
    pub fn to_open_metrics(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::with_prefix("epost");
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Registry {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, family) in self.families().iter() {
            match &family.series {
                Series::Counter(counter) => {
                    let metric = encoder.encode_descriptor(name, family.help, None, MetricType::Counter)?;
                    ConstCounter::new(counter.get()).encode(metric)?;
                }
                Series::Counters(counters) => {
                    let mut metric = encoder.encode_descriptor(name, family.help, None, MetricType::Counter)?;
                    for (cause, counter) in counters {
                        let labels = [("cause", *cause)];
                        ConstCounter::new(counter.get()).encode(metric.encode_family(&labels)?)?;
                    }
                }
                Series::Gauge(gauge) => {
                    let metric = encoder.encode_descriptor(name, family.help, None, MetricType::Gauge)?;
                    ConstGauge::new(gauge.get()).encode(metric)?;
                }
                Series::Reading(read) => {
                    let metric = encoder.encode_descriptor(name, family.help, None, MetricType::Gauge)?;
                    ConstGauge::new(read()).encode(metric)?;
                }
                Series::Readings(read) => {
                    let mut metric = encoder.encode_descriptor(name, family.help, None, MetricType::Gauge)?;
                    for (what, value) in read() {
                        ConstGauge::new(value).encode(metric.encode_family(&[("what", what)])?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is counted anywhere is what both pages show. Method: count, then read both.
    use super::*;

    #[test]
    fn both_pages_show_what_was_counted() {
        let registry = Registry::default();
        registry.counter("frames_in", "frames received").add(3);
        registry.counter("frames_in", "frames received").increment();
        registry.drops("peer queue full").increment();
        registry.gauge("peers", "peers connected").rise(5);
        registry.gauge("peers", "peers connected").fall(2);
        registry.reading("objects", "objects stored", || 17);
        registry.readings("smtp", "submission", || vec![("sessions", 4)]);
        let json = registry.to_json();
        assert_eq!(json["frames_in"], json!(4));
        assert_eq!(json["drops"], json!({"peer queue full": 1}));
        assert_eq!(json["peers"], json!(3));
        assert_eq!(json["objects"], json!(17));
        assert_eq!(json["smtp"], json!({"sessions": 4}));
        let text = registry.to_open_metrics();
        for line in [
            "epost_frames_in_total 4",
            "epost_drops_total{cause=\"peer queue full\"} 1",
            "epost_peers 3",
            "epost_objects 17",
            "epost_smtp{what=\"sessions\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is missing in {text}");
        }
    }

    #[test]
    #[should_panic(expected = "not a plain counter")]
    fn one_name_is_one_thing() {
        let registry = Registry::default();
        let _gauge = registry.gauge("peers", "peers connected");
        let _counter = registry.counter("peers", "peers connected");
    }
}
