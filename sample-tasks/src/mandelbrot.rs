//! Tiles of a picture of the Mandelbrot set.
//!
//! Only additions, multiplications, divisions and square roots are used, which IEEE 754 defines to
//! the last bit; the logarithm is made of them. So a tile has the same bytes whatever compiler,
//! library or processor it was made with.

/// Iterations after which a point counts as inside the set.
const ITERATIONS_MAX: u32 = 1_000;

/// A point whose distance from the origin has passed 2⁸ escapes. Far more than the 2 that would
/// do, so that the fraction of an iteration that gives smooth colours is exact.
const ESCAPE_RADIUS_LOG2: f64 = 8.0;
const ESCAPE_NORM: f64 = 65_536.0;

/// Each pixel is the mean of this many samples across and down.
const SAMPLES: u32 = 3;

/// How often the palette comes round while a point's number of iterations doubles.
const PALETTE_TURNS_PER_DOUBLING: f64 = 0.42;
/// Where the palette starts.
const PALETTE_OFFSET: f64 = 0.06;

/// Colours along one turn of the palette, from position 0 to 1, where it starts anew.
const PALETTE: [(f64, [f64; 3]); 6] = [
    (0.0, [4.0, 12.0, 78.0]),
    (0.18, [28.0, 104.0, 196.0]),
    (0.42, [236.0, 250.0, 255.0]),
    (0.62, [255.0, 176.0, 24.0]),
    (0.84, [96.0, 16.0, 40.0]),
    (1.0, [4.0, 12.0, 78.0]),
];
const INSIDE: [f64; 3] = [3.0, 4.0, 12.0];

/// A square part of the complex plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Real part of the centre.
    pub centre_x: f64,
    /// Imaginary part of the centre, which grows upwards.
    pub centre_y: f64,
    /// Length of an edge.
    pub scale: f64,
}

impl Default for View {
    /// The whole set.
    fn default() -> Self {
        Self { centre_x: -0.7, centre_y: 0.0, scale: 2.9 }
    }
}

/// One tile of a square picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tile {
    view: View,
    /// Length of the picture's edge, in pixels.
    size: u32,
    /// Length of the tile's edge, in pixels.
    edge: u32,
    /// Place of the tile's upper left pixel in the picture.
    left: u32,
    top: u32,
}

impl Tile {
    /// Tile `index`, counted from the upper left along the rows, of a picture of `size` × `size`
    /// pixels in `tiles` × `tiles` tiles; or what is wrong with these numbers.
    #[expect(clippy::missing_panics_doc, reason = "rows and columns are below TILES, which has 32 bits")]
    pub fn new(view: View, size: u32, tiles: u32, index: u64) -> Result<Self, String> {
        if tiles == 0 || size == 0 || !size.is_multiple_of(tiles) {
            return Err(format!("SIZE {size} is no positive multiple of TILES {tiles}"));
        }
        let numbers = [view.centre_x, view.centre_y, view.scale];
        if !numbers.iter().all(|number| number.is_finite()) || view.scale <= 0.0 {
            return Err("CX, CY and SCALE must be finite, and SCALE positive".to_owned());
        }
        let last = u64::from(tiles) * u64::from(tiles) - 1;
        if index > last {
            return Err(format!("task {index} has no tile: the last one is {last}"));
        }
        let edge = size / tiles;
        let start = |place: u64| u32::try_from(place).expect("below TILES") * edge;
        let (row, column) = (index / u64::from(tiles), index % u64::from(tiles));
        Ok(Self { view, size, edge, left: start(column), top: start(row) })
    }

    /// The tile's rows from the top, each as three bytes (red, green, blue) per pixel.
    pub fn rows(self) -> impl Iterator<Item = Vec<u8>> {
        (self.top..self.top + self.edge)
            .map(move |y| (self.left..self.left + self.edge).flat_map(|x| self.pixel(x, y)).collect())
    }

    /// Colour of the picture's pixel in column `x` and row `y`.
    fn pixel(self, x: u32, y: u32) -> [u8; 3] {
        let mut sum = [0.0; 3];
        for sample_y in 0..SAMPLES {
            for sample_x in 0..SAMPLES {
                let across = self.fraction(x, sample_x) - 0.5;
                let down = self.fraction(y, sample_y) - 0.5;
                let colour = colour(
                    self.view.centre_x + across * self.view.scale,
                    self.view.centre_y - down * self.view.scale,
                );
                for (sum, part) in sum.iter_mut().zip(colour) {
                    *sum += part;
                }
            }
        }
        sum.map(|sum| to_byte(sum / f64::from(SAMPLES * SAMPLES)))
    }

    /// Where a sample of a pixel lies between the picture's first edge, 0, and its last, 1.
    fn fraction(self, pixel: u32, sample: u32) -> f64 {
        let middle = (f64::from(sample) + 0.5) / f64::from(SAMPLES);
        (f64::from(pixel) + middle) / f64::from(self.size)
    }
}

/// Colour of one point of the plane.
fn colour(x: f64, y: f64) -> [f64; 3] {
    match escape_time(x, y) {
        None => INSIDE,
        Some(time) => palette(PALETTE_OFFSET + PALETTE_TURNS_PER_DOUBLING * log2(time + 1.0)),
    }
}

/// How many iterations of z² + c the point c = x + iy needs to escape, with a fraction that makes
/// it a smooth function of c; `None` when it doesn't within `ITERATIONS_MAX`.
fn escape_time(x: f64, y: f64) -> Option<f64> {
    if is_in_cardioid_or_disc(x, y) {
        return None;
    }
    let (mut re, mut im) = (0.0, 0.0);
    let (mut re_squared, mut im_squared) = (0.0, 0.0);
    for iteration in 0..ITERATIONS_MAX {
        im = 2.0 * re * im + y;
        re = re_squared - im_squared + x;
        re_squared = re * re;
        im_squared = im * im;
        let norm = re_squared + im_squared;
        if norm > ESCAPE_NORM {
            // Between 0, just escaped, and 1, as far out as one iteration leads.
            let overshoot = log2(log2(norm) / (2.0 * ESCAPE_RADIUS_LOG2));
            return Some(f64::from(iteration) + 1.0 - overshoot.min(1.0));
        }
    }
    None
}

/// Whether the point lies in one of the set's two largest parts, whose shapes are known.
fn is_in_cardioid_or_disc(x: f64, y: f64) -> bool {
    let quarter = x - 0.25;
    let q = quarter * quarter + y * y;
    q * (q + quarter) < 0.25 * y * y || (x + 1.0) * (x + 1.0) + y * y < 0.0625
}

/// The palette's colour at `position`, of which only the fraction counts.
fn palette(position: f64) -> [f64; 3] {
    let position = position - position.floor();
    let next = PALETTE.iter().position(|(stop, _)| position < *stop).unwrap_or(PALETTE.len() - 1);
    let (from, from_colour) = PALETTE[next - 1];
    let (to, to_colour) = PALETTE[next];
    let way = (position - from) / (to - from);
    // Without corners at the stops.
    let way = way * way * (3.0 - 2.0 * way);
    let mut colour = from_colour;
    for (part, to) in colour.iter_mut().zip(to_colour) {
        *part += way * (to - *part);
    }
    colour
}

/// The binary logarithm of a positive, normal number, with an error below 10⁻¹⁰.
///
/// From ln m = 2 artanh((m − 1) / (m + 1)), with m between 1/√2 and √2.
fn log2(number: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    const EXPONENT_OF_ONE: u16 = 1023;
    let bits = number.to_bits();
    let exponent = u16::try_from(bits >> MANTISSA_BITS).expect("12 bits are left");
    let mut exponent = f64::from(exponent) - f64::from(EXPONENT_OF_ONE);
    let mantissa_bits = bits & ((1 << MANTISSA_BITS) - 1);
    let mut mantissa = f64::from_bits(mantissa_bits | u64::from(EXPONENT_OF_ONE) << MANTISSA_BITS);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    exponent + 2.0 * s * series / std::f64::consts::LN_2
}

/// The byte next to a colour's part.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "palette colours lie between 0 and 255"
)]
fn to_byte(part: f64) -> u8 {
    (part + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_inside_the_set_never_escape() {
        // Of the cardioid, the disc, the antenna, and two smaller parts.
        for (x, y) in [(0.0, 0.0), (-1.0, 0.1), (-2.0, 0.0), (-0.12, 0.75), (-1.31, 0.0)] {
            assert_eq!(escape_time(x, y), None, "{x} + {y}i");
        }
    }

    #[test]
    fn escape_time_is_smooth_and_grows_towards_the_set() {
        let times: Vec<f64> = (0..=1_000)
            .map(|step| 2.0 - 1.7 * f64::from(step) / 1_000.0)
            .map(|x| escape_time(x, 0.0).expect("right of 0.25 lies outside"))
            .collect();
        for pair in times.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
            assert!(pair[1] - pair[0] < 0.05 * pair[1], "{pair:?}");
        }
    }

    #[test]
    fn logarithm_agrees_with_the_library() {
        for number in [1e-9, 0.5, 0.7, 1.0, 1.4, 1.5, 2.0, 65_536.1, 4.3e9, 1e300] {
            let error = (log2(number) - number.log2()).abs();
            assert!(error < 1e-10, "log2({number}) is off by {error}");
        }
        assert!(log2(8.0).to_bits() == 3.0_f64.to_bits(), "powers of two are exact");
    }

    #[test]
    fn palette_has_no_seam() {
        let (last, first) = (palette(0.999_999), palette(1.0));
        for (last, first) in last.iter().zip(first) {
            assert!((last - first).abs() < 0.01, "{last} and {first}");
        }
    }

    #[test]
    fn tiles_make_up_the_picture() {
        let tile = |tiles, index| {
            Tile::new(View::default(), 12, tiles, index)
                .expect("12 is a multiple of 1 and 3")
                .rows()
                .collect::<Vec<_>>()
        };
        let picture = tile(1, 0);
        for index in 0..9 {
            let (row, column) = (index / 3 * 4, index % 3 * 4);
            let part: Vec<&[u8]> =
                picture[row..row + 4].iter().map(|pixels| &pixels[3 * column..3 * (column + 4)]).collect();
            assert_eq!(tile(3, index as u64), part, "tile {index}");
        }
    }

    #[test]
    fn impossible_tiles_are_refused() {
        let refusal =
            |size, tiles, index| Tile::new(View::default(), size, tiles, index).expect_err("must be refused");
        assert_eq!(refusal(10, 3, 0), "SIZE 10 is no positive multiple of TILES 3");
        assert_eq!(refusal(0, 1, 0), "SIZE 0 is no positive multiple of TILES 1");
        assert_eq!(refusal(8, 0, 0), "SIZE 8 is no positive multiple of TILES 0");
        assert_eq!(refusal(8, 2, 4), "task 4 has no tile: the last one is 3");
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let view = View { scale, ..View::default() };
            assert!(Tile::new(view, 8, 2, 0).is_err(), "scale {scale}");
        }
    }
}
