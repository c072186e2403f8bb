//! The picture: tiles that workers computed, put together into a PNG, and small on a terminal.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, ensure};

/// Length of the picture's edge in pixels.
pub(super) const SIZE: usize = 768;
/// Tiles along an edge.
pub(super) const TILES: usize = 8;

/// Length of a tile's edge in pixels.
const EDGE: usize = SIZE / TILES;
/// Red, green, blue.
const CHANNELS: usize = 3;
/// Width of the preview in characters; a character is two pixels high.
const PREVIEW_COLUMNS: usize = 64;

/// Pixels by rows from the top, three bytes each.
#[derive(Debug)]
pub(super) struct Picture {
    pixels: Vec<u8>,
}

/// How many colours a terminal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The 6 × 6 × 6 cube of the 256 colours that every terminal has.
    Cube,
    /// 24 bits.
    True,
}

impl Depth {
    /// What the terminal says about itself in `COLORTERM`.
    pub(super) fn of_terminal() -> Self {
        match std::env::var("COLORTERM").as_deref() {
            Ok("truecolor" | "24bit") => Self::True,
            _ => Self::Cube,
        }
    }
}

/// Reads the tiles from `DIR/INDEX.out`, counted from the upper left along the rows.
pub(super) fn assemble(dir: &Path) -> anyhow::Result<Picture> {
    let mut picture = Picture::black();
    for index in 0..TILES * TILES {
        let path = dir.join(format!("{index}.out"));
        let tile = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        picture.put(index, &tile)?;
    }
    Ok(picture)
}

impl Picture {
    /// A picture without tiles.
    pub(super) fn black() -> Self {
        Self { pixels: vec![0; SIZE * SIZE * CHANNELS] }
    }

    fn put(&mut self, index: usize, tile: &[u8]) -> anyhow::Result<()> {
        ensure!(tile.len() == EDGE * EDGE * CHANNELS, "tile {index} has {} bytes", tile.len());
        let (top, left) = (index / TILES * EDGE, index % TILES * EDGE);
        for (row, pixels) in tile.chunks_exact(EDGE * CHANNELS).enumerate() {
            let start = ((top + row) * SIZE + left) * CHANNELS;
            self.pixels[start..start + pixels.len()].copy_from_slice(pixels);
        }
        Ok(())
    }

    /// The file.
    pub(super) fn to_png(&self) -> anyhow::Result<Vec<u8>> {
        let edge = u32::try_from(SIZE)?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, edge, edge);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().context("cannot encode the picture")?;
        writer.write_image_data(&self.pixels).context("cannot encode the picture")?;
        writer.finish().context("cannot encode the picture")?;
        Ok(file)
    }

    /// Lines of upper half blocks, whose foreground is the upper pixel and whose background the lower one.
    pub(super) fn preview(&self, depth: Depth) -> String {
        let mut text = String::new();
        for row in (0..PREVIEW_COLUMNS).step_by(2) {
            for column in 0..PREVIEW_COLUMNS {
                let (upper, lower) = (self.mean(column, row), self.mean(column, row + 1));
                // Writing to a string can't fail.
                let _ = write!(text, "\x1b[38;{};48;{}m▀", code(upper, depth), code(lower, depth));
            }
            text.push_str("\x1b[0m\n");
        }
        text
    }

    /// The mean colour of one of the preview's squares.
    fn mean(&self, column: usize, row: usize) -> [u8; CHANNELS] {
        const SQUARE: usize = SIZE / PREVIEW_COLUMNS;
        let mut sums = [0; CHANNELS];
        for y in row * SQUARE..(row + 1) * SQUARE {
            let start = (y * SIZE + column * SQUARE) * CHANNELS;
            for pixel in self.pixels[start..start + SQUARE * CHANNELS].chunks_exact(CHANNELS) {
                for (sum, part) in sums.iter_mut().zip(pixel) {
                    *sum += usize::from(*part);
                }
            }
        }
        sums.map(|sum| u8::try_from(sum / (SQUARE * SQUARE)).unwrap_or(u8::MAX))
    }
}

/// The part of an escape sequence that names a colour.
fn code([red, green, blue]: [u8; CHANNELS], depth: Depth) -> String {
    /// Levels of the cube, as xterm set them.
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let nearest = |part: u8| (0..6).min_by_key(|level| LEVELS[*level].abs_diff(part)).unwrap_or(0);
    match depth {
        Depth::True => format!("2;{red};{green};{blue}"),
        Depth::Cube => format!("5;{}", 16 + 36 * nearest(red) + 6 * nearest(green) + nearest(blue)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(value: u8) -> Vec<u8> {
        vec![value; EDGE * EDGE * CHANNELS]
    }

    #[test]
    fn tiles_land_where_their_index_says() {
        let mut picture = Picture::black();
        let second_row_third_column = TILES + 2;
        picture.put(second_row_third_column, &tile(9)).expect("fits");
        let at = |x: usize, y: usize| picture.pixels[(y * SIZE + x) * CHANNELS];
        assert_eq!(at(2 * EDGE, EDGE), 9);
        assert_eq!(at(3 * EDGE - 1, 2 * EDGE - 1), 9);
        assert_eq!((at(2 * EDGE - 1, EDGE), at(2 * EDGE, EDGE - 1)), (0, 0));
        assert_eq!((at(3 * EDGE, EDGE), at(2 * EDGE, 2 * EDGE)), (0, 0));
    }

    #[test]
    fn a_tile_of_another_size_is_refused() {
        let error = Picture::black().put(3, &[0; 5]).expect_err("too short");
        assert_eq!(error.to_string(), "tile 3 has 5 bytes");
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let mut picture = Picture::black();
        picture.put(63, &tile(200)).expect("fits");
        let file = picture.to_png().expect("encoded");
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let mut pixels = vec![0; picture.pixels.len()];
        let info = reader.next_frame(&mut pixels).expect("a picture");
        assert_eq!((info.width, info.height), (768, 768));
        assert!(pixels == picture.pixels);
    }

    #[test]
    fn the_preview_has_the_nearest_colours_that_the_terminal_knows() {
        assert_eq!(code([255, 0, 94], Depth::Cube), "5;197");
        assert_eq!(code([1, 2, 3], Depth::True), "2;1;2;3");
        let preview = Picture::black().preview(Depth::Cube);
        assert_eq!(preview.lines().count(), 32);
        assert!(preview.starts_with("\x1b[38;5;16;48;5;16m▀"));
    }
}
