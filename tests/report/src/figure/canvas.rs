//! What all pictures share: their widths, their colours and their letters.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordi32;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use super::axis::Axis;
use crate::visible::visible;

/// A picture, or why there is none.
pub type Drawn = Result<Figure, String>;

/// Where a picture is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture in two widths; the style of the page shows one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// What the picture shows.
    pub title: String,
    /// How it is read.
    pub caption: String,
    /// SVG for a usual screen.
    pub wide: String,
    /// Whether the picture needs the whole width of the page.
    pub whole: bool,
    /// SVG for a narrow screen.
    pub narrow: String,
}

/// Whose figures a shape shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// This library, or what is after.
    Own,
    /// Another one, or what was before: hatched.
    Other,
}

/// The width of a picture that has a column of the page, in pixels.
pub const COLUMN: u32 = 540;
/// The width of a picture that has the whole page.
pub const WHOLE: u32 = 1080;
/// The width of a picture on a narrow screen.
const NARROW: u32 = 328;

/// The height of a horizontal axis with its numbers and its unit, in pixels.
pub const AXIS: u32 = 44;

/// Height of letters, as plotters counts it: 13 pixels on the page.
const LETTERS: f64 = 16.0;

/// Colours that stand for one of the page's. No picture shows them: see [`themed`].
pub const INK: RGBColor = RGBColor(1, 1, 1);
/// Colour of words that explain.
pub const MUTED: RGBColor = RGBColor(2, 2, 2);
/// Colour of the grid.
pub const GRID: RGBColor = RGBColor(3, 3, 3);
/// Colour of [`Series::Own`].
pub const OWN: RGBColor = RGBColor(4, 4, 4);
/// Colour of [`Series::Other`], as a line.
pub const OTHER: RGBColor = RGBColor(5, 5, 5);
/// Colour of [`Series::Other`], as an area.
pub const HATCHED: RGBColor = RGBColor(6, 6, 6);
/// Colour of [`Series::Own`], as an area with something in it.
pub const PALE: RGBColor = RGBColor(7, 7, 7);

/// What the page has in place of each colour.
const THEME: [(&str, &str); 7] = [
    ("\"#010101\"", "\"currentColor\""),
    ("\"#020202\"", "\"var(--muted)\""),
    ("\"#030303\"", "\"var(--line)\""),
    ("\"#040404\"", "\"var(--own)\""),
    ("\"#050505\"", "\"var(--other)\""),
    ("\"#060606\"", "\"url(#hatch)\""),
    ("\"#070707\"", "\"var(--pale)\""),
];

impl Series {
    /// Returns the colour of an area.
    pub fn fill(self) -> RGBColor {
        match self {
            Self::Own => OWN,
            Self::Other => HATCHED,
        }
    }

    /// Returns the colour of a line.
    pub fn line(self) -> RGBColor {
        match self {
            Self::Own => OWN,
            Self::Other => OTHER,
        }
    }
}

/// Draws a picture, `wide` pixels wide and for a narrow screen. `height` returns the height for a width.
pub fn draw(
    title: &str,
    caption: &str,
    wide: u32,
    height: impl Fn(u32) -> u32,
    paint: impl Fn(&Area<'_>) -> Result<(), String>,
) -> Drawn {
    let at = |width: u32| {
        let mut svg = String::new();
        {
            let backend = SVGBackend::with_string(&mut svg, (width, height(width)));
            let area = backend.into_drawing_area();
            paint(&area)?;
            area.present().map_err(why)?;
        }
        Ok::<_, String>(themed(&svg, title))
    };
    let (svg, narrow) = (at(wide)?, at(NARROW)?);
    Ok(Figure {
        title: title.to_owned(),
        caption: caption.to_owned(),
        wide: svg,
        whole: wide == WHOLE,
        narrow,
    })
}

/// Returns the message of an error while drawing.
pub fn why(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Returns true if a picture is drawn for a narrow screen.
pub fn is_narrow(area: &Area<'_>) -> bool {
    area.dim_in_pixel().0 <= NARROW
}

/// Returns the style of words, which stand to the right of their position and are centred on it
/// vertically.
pub fn words(colour: RGBColor) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, LETTERS, FontStyle::Normal);
    let color = colour.to_backend_color();
    TextStyle { font, color, pos: Pos::new(HPos::Left, VPos::Center) }
}

/// Gives axes and grid the style of the page.
pub fn styled<'m, 'a, 'b, 's, X: Ranged, Y: Ranged>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'s>>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'s>> {
    mesh.bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(MUTED)
        .label_style(words(MUTED))
        .axis_desc_style(words(MUTED))
}

/// A chart with values on its horizontal axis, and rows of pixels.
pub type Rows<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, RangedCoordi32>>;

/// Draws the horizontal axis and the grid of a chart whose rows begin `top` pixels below its upper edge.
pub fn rows<'a>(area: &Area<'a>, x: Axis, top: i32, unit: &str) -> Result<Rows<'a>, String> {
    let rows = area.dim_in_pixel().1 as i32 - top - AXIS as i32;
    let mut chart = ChartBuilder::on(area)
        .margin_top(top)
        .margin_left(16)
        .margin_right(18)
        .x_label_area_size(AXIS)
        .build_cartesian_2d(x, 0..rows)
        .map_err(why)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().x_labels(12).x_desc(unit);
    styled(&mut mesh).draw().map_err(why)?;
    Ok(chart)
}

/// Replaces the colours by those of the page, and names the picture for a screen reader.
fn themed(svg: &str, title: &str) -> String {
    let (head, body) = svg.split_once('>').unwrap_or((svg, ""));
    let size = head.split_once("viewBox=").map_or("", |(_, rest)| rest);
    let size = size.split('"').nth(1).unwrap_or("0 0 1 1");
    let title = escaped(title);
    let mut text = format!("<svg viewBox=\"{size}\" role=\"img\" aria-label=\"{title}\">{body}");
    for (colour, of_page) in THEME {
        text = text.replace(colour, of_page);
    }
    visible(&text)
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_colours_of_the_page_and_no_others() {
        let drawn = draw(
            "a < \"b\"",
            "",
            COLUMN,
            |_| 50,
            |area| {
                let styles = [INK, MUTED, GRID, OWN, OTHER, HATCHED, PALE];
                for (at, colour) in styles.into_iter().enumerate() {
                    let rectangle = Rectangle::new([(at as i32, 0), (9, 9)], colour.filled());
                    area.draw(&rectangle).map_err(why)?;
                }
                area.draw(&Text::new("<script>", (1, 1), words(INK))).map_err(why)
            },
        );
        let Figure { wide, narrow, .. } = drawn.unwrap();
        for (svg, size) in [(&wide, "0 0 540 50"), (&narrow, "0 0 328 50")] {
            assert!(svg.contains(&format!("<svg viewBox=\"{size}\" role=\"img\"")), "{svg}");
            assert!(svg.contains("aria-label=\"a &lt; &quot;b&quot;\""), "{svg}");
            assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
            assert!(svg.contains("currentColor") && svg.contains("url(#hatch)"), "{svg}");
            assert!(!svg.contains("\"#0"), "{svg}");
        }
    }
}
