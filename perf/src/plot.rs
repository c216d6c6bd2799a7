//! Results as a picture: what was done a second, and latency, over time.

use anyhow::{Context, bail, ensure};
use plotters::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

const SIZE: (u32, u32) = (960, 720);

/// A result that can be drawn.
struct Curve {
    name: String,
    /// Second, done in it, median and 99th percentile of latency in µs.
    moments: Vec<(f64, f64, Option<f64>, Option<f64>)>,
}

impl Curve {
    fn read(path: &Path) -> anyhow::Result<Vec<Curve>> {
        let text = std::fs::read_to_string(path)?;
        let result: Value = serde_json::from_str(&text)?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(parts) = result["parts"].as_array() else { return Ok(vec![Curve::of(name, &result)?]) };
        parts
            .iter()
            .map(|part| Curve::of(format!("{name}: {}", part["command"].as_str().unwrap_or_default()), part))
            .collect()
    }

    fn of(name: String, result: &Value) -> anyhow::Result<Curve> {
        let timeline = result["timeline"].as_array().context("no timeline: not a result of mailfail2ban-load")?;
        let whole = result["seconds"].as_f64().unwrap_or(f64::MAX);
        let moment = |moment: &Value| {
            let number = |key: &str| moment[key].as_f64();
            Some((number("at")?, number("done")?, number("p50_us"), number("p99_us")))
        };
        // The last second is mostly not a whole one.
        let moments: Vec<_> = timeline.iter().filter_map(moment).filter(|(at, ..)| *at <= whole.max(1.0)).collect();
        ensure!(!moments.is_empty(), "an empty timeline");
        Ok(Curve { name, moments })
    }
}

/// Draws results into one file.
///
/// # Errors
///
/// A file is no result, or cannot be read or written.
pub fn draw(results: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let mut curves = Vec::new();
    for path in results {
        curves.extend(Curve::read(path).with_context(|| path.display().to_string())?);
    }
    if curves.is_empty() {
        bail!("nothing to draw");
    }
    let mut svg = String::new();
    draw_into(&mut svg, &curves).map_err(|error| anyhow::anyhow!("{error}"))?;
    std::fs::write(out, svg).with_context(|| out.display().to_string())
}

fn draw_into(svg: &mut String, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    let all = || curves.iter().flat_map(|curve| &curve.moments);
    let seconds = all().map(|(at, ..)| *at).fold(1.0, f64::max);
    let most = all().map(|(_, done, ..)| *done).fold(1.0, f64::max);
    let latencies = || all().flat_map(|(_, _, p50, p99)| [*p50, *p99]).flatten();

    let mut chart = ChartBuilder::on(&upper)
        .caption("done per second", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..seconds, 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc("seconds").light_line_style(WHITE).draw()?;
    for (at, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(at).to_rgba();
        chart
            .draw_series(LineSeries::new(curve.moments.iter().map(|(x, y, ..)| (*x, *y)), color.stroke_width(2)))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;

    if latencies().next().is_some() {
        let lowest = latencies().fold(f64::MAX, f64::min).max(0.1);
        let highest = latencies().fold(lowest, f64::max);
        let mut chart = ChartBuilder::on(&lower)
            .caption("latency in µs: p50 thin, p99 thick", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..seconds, (lowest * 0.8..highest * 1.25).log_scale())?;
        chart.configure_mesh().x_desc("seconds").light_line_style(WHITE).draw()?;
        for (at, curve) in curves.iter().enumerate() {
            let color = Palette99::pick(at).to_rgba();
            let p50 = curve.moments.iter().filter_map(|(x, _, p50, _)| Some((*x, (*p50)?)));
            let p99 = curve.moments.iter().filter_map(|(x, _, _, p99)| Some((*x, (*p99)?)));
            chart.draw_series(LineSeries::new(p50, color.stroke_width(1)))?;
            chart.draw_series(LineSeries::new(p99, color.stroke_width(3)))?;
        }
    }
    root.present()?;
    drop((upper, lower));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_what_it_shows() {
        let result = serde_json::json!({"command": "auth", "seconds": 3.0, "timeline": [
            {"at": 1, "done": 1000, "p50_us": 50.0, "p99_us": 200.0},
            {"at": 2, "done": 1200, "p50_us": 55.0, "p99_us": 900.0},
            {"at": 3, "done": 1100},
        ]});
        let folder = std::env::temp_dir().join(format!("mailfail2ban-plot-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [json, svg] = ["before.json", "out.svg"].map(|name| folder.join(name));
        std::fs::write(&json, result.to_string()).unwrap();
        draw(&[json.clone(), json.clone()], &svg).unwrap();
        let picture = std::fs::read_to_string(&svg).unwrap();
        assert!(picture.starts_with("<svg") && picture.contains("before") && picture.matches("polyline").count() >= 6);
        std::fs::write(&json, "{}").unwrap();
        assert!(format!("{:#}", draw(&[json], &svg).unwrap_err()).contains("no timeline"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
