//! What may go wrong, as people say it on the command line, and as a campaign draws it.

use net::limits::SECOND;
use net::machine::Micros;
use net::sim::Dice;
use net::sim::faults::{Hazards, Spell};

/// What plans of faults are drawn from; nothing goes wrong unless something is said here.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Nodes stay for so long, on average, then fall: 2.3h, 30min, 90s. (Weibull times, see --shape.)
    #[arg(long, value_parser = spell)]
    churn: Option<Micros>,
    /// They come back after so long, on average.
    #[arg(long, value_parser = spell, default_value = "30min")]
    gaps: Micros,
    /// Shape of both distributions: 1 is exponential, less has more short and more long sessions.
    #[arg(long, default_value_t = 1.0, value_parser = shape)]
    shape: f64,
    /// Of the nodes that fall, so many come back with an empty disk: 5%.
    #[arg(long, default_value = "0%", value_parser = share)]
    wiped: u32,
    /// Messages lost: 1%.
    #[arg(long, default_value = "0%", value_parser = share)]
    loss: u32,
    /// Messages that come twice.
    #[arg(long, default_value = "0%", value_parser = share)]
    duplication: u32,
    /// How many times a random part of the ring is cut off for a while.
    #[arg(long, default_value_t = 0)]
    partitions: u32,
    /// Nodes that sleep for a while.
    #[arg(long, default_value_t = 0)]
    sleeps: u32,
    /// Links that are blocked, half of them one way.
    #[arg(long, default_value_t = 0)]
    blocked_links: u32,
    /// Links that are slow, half of them one way.
    #[arg(long, default_value_t = 0)]
    slow_links: u32,
    /// Clocks that step, and as many that drift.
    #[arg(long, default_value_t = 0)]
    clocks: u32,
    /// Disks that are slow for a while, and as many that are full.
    #[arg(long, default_value_t = 0)]
    disks: u32,
}

impl Said {
    /// What a network of packets is told: lost and doubled ones of a million, and whether it is cut in two for a while. None if
    /// more than that was said.
    pub(super) fn of_packets(&self) -> Option<(u32, u32, bool)> {
        let packets = Said {
            gaps: self.gaps,
            shape: self.shape,
            wiped: self.wiped,
            loss: self.loss,
            duplication: self.duplication,
            partitions: self.partitions.min(1),
            ..Said::default()
        };
        (packets == *self).then_some((self.loss, self.duplication, self.partitions > 0))
    }

    /// The same, for drawing plans; `None` if nothing is to go wrong.
    pub(super) fn hazards(&self) -> Option<Hazards> {
        let spell = |mean| Spell { mean, shape: self.shape };
        let hazards = Hazards {
            sessions: self.churn.map(spell),
            gaps: self.churn.map(|_| spell(self.gaps)),
            wiped: if self.churn.is_some() { self.wiped } else { 0 },
            loss: self.loss,
            duplication: self.duplication,
            cuts: self.partitions,
            sleeps: self.sleeps,
            blocked_links: self.blocked_links,
            slow_links: self.slow_links,
            clocks: self.clocks,
            disks: self.disks,
        };
        (hazards != Hazards::default()).then_some(hazards)
    }
}

/// What a campaign draws for a seed: sessions of 10 minutes to 2.3 hours on average (evenly by their logarithm), gaps of 1 to 30
/// minutes, one node in twenty that falls losing its disk, up to 3 % of loss and 1 % of duplicates, a partition for every
/// other seed, up to five sleepers and full and slow disks, up to ten slow links, and up to three wrong clocks.
pub(super) fn drawn(seed: u64) -> Hazards {
    let mut dice = Dice::new(seed ^ 0x4a2a);
    let mut between = |least: Micros, most: Micros| {
        Spell::exponential((least as f64 * (most as f64 / least as f64).powf(dice.fraction())) as Micros)
    };
    let sessions = between(600 * SECOND, 8_280 * SECOND);
    let gaps = between(60 * SECOND, 1_800 * SECOND);
    let mut up_to = |most: usize| dice.below(most + 1) as u32;
    Hazards {
        sessions: Some(sessions),
        gaps: Some(gaps),
        wiped: 50_000,
        loss: up_to(30_000),
        duplication: up_to(10_000),
        cuts: up_to(1),
        sleeps: up_to(5),
        blocked_links: 0,
        slow_links: up_to(10),
        clocks: up_to(3),
        disks: up_to(5),
    }
}

/// 2.3h, 30min, 90s.
pub(super) fn spell(text: &str) -> Result<Micros, String> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "h" => 3_600.0,
        "min" => 60.0,
        "s" => 1.0,
        _ => return Err("a number with h, min or s behind it".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.1..=3.6e7).contains(&(number * seconds)) => Ok((number * seconds * SECOND as f64) as Micros),
        Ok(_) => Err("between a tenth of a second and 10000 hours".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// 1%, 0.5%: in millionths.
fn share(text: &str) -> Result<u32, String> {
    match text.strip_suffix('%').ok_or("a number with % behind it")?.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 10_000.0).round() as u32),
        Ok(_) => Err("between 0% and 100%".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn shape(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(shape) if (0.2..=5.0).contains(&shape) => Ok(shape),
        Ok(_) => Err("between 0.2 and 5".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what people type is understood or refused. Method: a few of each.

    use super::*;

    #[test]
    fn spells_and_shares_are_read() {
        assert_eq!(spell("2.3h"), Ok(8_280 * SECOND));
        assert_eq!(spell("30min"), Ok(1_800 * SECOND));
        assert_eq!(share("1%"), Ok(10_000));
        assert_eq!(share("0.5%"), Ok(5_000));
        for wrong in ["", "5", "h", "3d", "-1h", "1e99h"] {
            assert!(spell(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "5", "%", "101%", "-1%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_said_is_nothing_wrong_and_every_seed_draws_its_own() {
        assert_eq!(Said { gaps: 5, shape: 1.0, ..Said::default() }.hazards(), None);
        assert!(Said { loss: 1, shape: 1.0, ..Said::default() }.hazards().is_some());
        assert_ne!(drawn(1), drawn(2));
        assert_eq!(drawn(3), drawn(3));
    }
}
