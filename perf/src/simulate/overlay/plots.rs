//! A trial as a picture: hops, delay stretch, traffic a node, and replicas, a panel each.

use super::figures::Figures;
use crate::load::LoadError;
use crate::report::plot::{Line, Panel, Shape, draw};
use net::sim::trial::STRETCH_STEP;
use std::path::{Path, PathBuf};

const COLOURS: [&str; 4] = ["#c8443c", "#e39a3b", "#7fa7d6", "#4f7fb5"];

/// Draws it into `folder`, by its size and seed.
pub(super) fn write(folder: &Path, figures: &Figures, commit: &str) -> Result<PathBuf, LoadError> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(format!("overlay-{}-{}.svg", figures.nodes, figures.seed));
    let place = format!(
        "{} nodes, seed {}, {} faults, {} lookups; commit {commit}",
        figures.nodes, figures.seed, figures.faults, figures.lookups
    );
    std::fs::write(&file, draw("The overlay in virtual time", &place, &panels(figures)))?;
    Ok(file)
}

fn panels(figures: &Figures) -> Vec<Panel> {
    let share = |counts: &[u64], width: f64| {
        let all = counts.iter().sum::<u64>().max(1) as f64;
        let bars = counts.iter().enumerate().map(|(nth, count)| (nth as f64 * width, 100.0 * *count as f64 / all));
        Shape::Bars { width, bars: bars.collect() }
    };
    let seen = figures.stretches.iter().rposition(|count| *count > 0).map_or(1, |last| last + 1);
    let minutes = |value: fn(&(f64, f64)) -> f64| {
        figures.traffic.iter().enumerate().map(|(minute, sent)| (minute as f64 + 1.0, value(sent))).collect()
    };
    let traffic = vec![
        Line { name: "upkeep".to_owned(), colour: COLOURS[0], points: minutes(|sent| sent.0) },
        Line { name: "all".to_owned(), colour: COLOURS[3], points: minutes(|sent| sent.1) },
    ];
    let mut panels = vec![
        Panel { title: "Hops of a lookup", across: "hops", up: "% of lookups", shape: share(&figures.hops, 1.0) },
        Panel {
            title: "Delay stretch",
            across: "time on the way ÷ time of the straight way (last bar: all that is more)",
            up: "% of lookups",
            shape: share(&figures.stretches[..seen], STRETCH_STEP),
        },
        Panel {
            title: "Traffic",
            across: "virtual minutes",
            up: "messages a node and second",
            shape: Shape::Lines(traffic),
        },
    ];
    if !figures.copies.is_empty() {
        let most = figures.copies.iter().map(|(_, copies)| copies.len()).max().unwrap_or(1) - 1;
        let lines = (0..=most).map(|count| Line {
            name: if count == most { format!("{count} or more") } else { count.to_string() },
            colour: COLOURS[count % COLOURS.len()],
            points: figures
                .copies
                .iter()
                .map(|(at, copies)| {
                    let all = copies.iter().sum::<u32>().max(1);
                    (*at as f64 / 60.0, 100.0 * f64::from(copies.get(count).copied().unwrap_or(0)) / f64::from(all))
                })
                .collect(),
        });
        panels.push(Panel {
            title: "Objects by their copies on running nodes",
            across: "virtual minutes",
            up: "% of objects",
            shape: Shape::Lines(lines.collect()),
        });
    }
    panels
}
