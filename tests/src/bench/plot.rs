//! The report's plots, as SVG.

use std::{ops::Range, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    coord::{Shift, ranged1d::SegmentValue},
    prelude::*,
    style::Palette99,
};

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (900, 480);
const FONT: (&str, u32) = ("sans-serif", 14);
const TITLE: (&str, u32) = ("sans-serif", 18);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a plot: its name, and its points.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether it is a goal, and no measurement.
    pub is_goal: bool,
}

/// Bars of one colour, one for each group.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What the legend calls it.
    pub name: String,
    /// Their heights; nothing where there is none.
    pub heights: Vec<Option<f64>>,
}

/// What plotters says, which holds parts of the plot.
fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

fn colour(index: usize) -> RGBAColor {
    Palette99::pick(index).to_rgba()
}

/// The largest of some heights, and a tenth more.
fn top(heights: impl Iterator<Item = f64>) -> f64 {
    heights.fold(f64::MIN_POSITIVE, f64::max) * 1.1
}

fn paper(file: &Path) -> Result<Area<'_>> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(told)?;
    Ok(area)
}

/// Lines over numbers of flows.
pub fn lines(file: &Path, title: &str, unit: &str, lines: &[Line]) -> Result<()> {
    let area = paper(file)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = top(points().map(|point| point.0));
    let height = top(points().map(|point| point.1));
    let mut chart = ChartBuilder::on(&area)
        .caption(title, TITLE)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((1.0..right).log_scale(), 0.0..height)
        .map_err(told)?;
    chart
        .configure_mesh()
        .x_desc("flows")
        .y_desc(unit)
        .label_style(FONT)
        .x_label_formatter(&|flows| format!("{flows:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(told)?;
    for (index, line) in lines.iter().enumerate() {
        let (colour, points) = (colour(index), line.points.iter().copied());
        if line.is_goal {
            let marks = points.map(|point| Cross::new(point, 5, colour.stroke_width(2)));
            let drawn = chart.draw_series(marks).map_err(told)?;
            drawn
                .label(&line.name)
                .legend(move |(x, y)| Cross::new((x + 9, y), 5, colour.stroke_width(2)).into_dyn());
        } else {
            let drawn = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
            let drawn = chart.draw_series(drawn).map_err(told)?;
            drawn.label(&line.name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)).into_dyn()
            });
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
        .map_err(told)?;
    area.present().map_err(told)
}

/// Groups of bars.
pub fn bars(file: &Path, title: &str, unit: &str, groups: &[String], bars: &[Bars]) -> Result<()> {
    let area = paper(file)?;
    let heights = bars.iter().flat_map(|bars| bars.heights.iter().flatten());
    // Where nothing is above zero, there is a scale all the same; and room for the legend above.
    let height = top(heights.copied()).max(1.0) * 1.3;
    let count = i32::try_from(groups.len())?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, TITLE)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((0..count - 1).into_segmented(), 0.0..height)
        .map_err(told)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_desc(unit)
        .label_style(("sans-serif", 11))
        .x_label_formatter(&|value| group_name(value, groups))
        .draw()
        .map_err(told)?;
    let plane = chart.plotting_area().strip_coord_spec();
    let (width, depth) = plane.dim_in_pixel();
    let slots = bars.len() + 1;
    for (index, series) in bars.iter().enumerate() {
        let colour = colour(index);
        // Within its group each series has its own strip, of which plotters' axes know nothing.
        for (group, value) in series.heights.iter().enumerate() {
            let Some(value) = value else { continue };
            let strip = pixels(width, group * slots + index, groups.len() * slots);
            let up = (value / height * f64::from(depth)).round();
            let bottom = i32::try_from(depth)?;
            let shift = strip.end - strip.start;
            let corners = [
                (strip.start + shift / 2, bottom - rounded(up)),
                (strip.end + shift / 2, bottom),
            ];
            plane
                .draw(&Rectangle::new(corners, colour.filled()))
                .map_err(told)?;
        }
        let swatch = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        // An empty series, for the legend.
        let none = std::iter::empty::<Rectangle<(SegmentValue<i32>, f64)>>();
        let drawn = chart.draw_series(none).map_err(told)?;
        drawn.label(&series.name).legend(swatch);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
        .map_err(told)?;
    area.present().map_err(told)
}

fn group_name(value: &SegmentValue<i32>, groups: &[String]) -> String {
    match value {
        SegmentValue::CenterOf(index) => usize::try_from(*index)
            .ok()
            .and_then(|index| groups.get(index))
            .cloned()
            .unwrap_or_default(),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    }
}

/// Where one of so many strips lies.
fn pixels(width: u32, strip: usize, of: usize) -> Range<i32> {
    let at = |strip: usize| {
        let place = u64::from(width) * strip as u64 / of as u64;
        i32::try_from(place).unwrap_or(i32::MAX)
    };
    at(strip)..at(strip + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels")]
const fn rounded(pixels: f64) -> i32 {
    pixels as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a plot of that name holds.
    fn drawn(name: &str, draw: impl FnOnce(&Path) -> Result<()>) -> String {
        let file = std::env::temp_dir().join(format!("nlb-{name}-{}.svg", std::process::id()));
        draw(&file).expect("it can be drawn");
        let text = std::fs::read_to_string(&file).expect("it is there");
        std::fs::remove_file(&file).expect("it is ours");
        text
    }

    #[test]
    fn lines_and_goals_are_named_and_drawn() {
        let line = |name: &str, is_goal| Line {
            name: name.into(),
            points: vec![(1.0, 10.0), (1e6, 200.0)],
            is_goal,
        };
        let all = [line("measured", false), line("wanted", true)];
        let text = drawn("lines", |file| lines(file, "title", "ns", &all));
        assert!(
            ["measured", "wanted", "title", "<polyline"]
                .iter()
                .all(|word| text.contains(word))
        );
    }

    #[test]
    fn a_bar_that_is_missing_leaves_its_place_empty() {
        let groups = ["one", "other"].map(String::from);
        let count = |heights: Vec<Option<f64>>| {
            let series = [Bars {
                name: "figure".into(),
                heights,
            }];
            let text = drawn("bars", |file| bars(file, "title", "×", &groups, &series));
            text.matches("<rect").count()
        };
        let both = count(vec![Some(1.0), Some(2.0)]);
        assert_eq!(count(vec![Some(1.0), None]), both - 1);
    }
}
