//! Renders one tile of a picture of the Mandelbrot set.
//!
//! The picture has SIZE × SIZE pixels in TILES × TILES tiles, which the tasks `0..TILES²` of a job
//! render, counted from the upper left along the rows.
//!
//! * arguments: `SIZE TILES [CX CY SCALE]`; SIZE is a multiple of TILES; CX + i·CY is the centre
//!   of the picture and SCALE the length of its sides in the complex plane (default: the whole set)
//! * input: none
//! * output: the tile's pixels row by row from the top, three bytes (red, green, blue) each

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli::{self, Failure, number};
use talka_sample_tasks::mandelbrot::{Tile, View};

fn main() -> ExitCode {
    cli::run("mandelbrot SIZE TILES [CX CY SCALE]", |arguments| {
        let (size, tiles, view) = match arguments {
            [size, tiles] => (size, tiles, View::default()),
            [size, tiles, centre_x, centre_y, scale] => {
                let view = View {
                    centre_x: number("CX", centre_x)?,
                    centre_y: number("CY", centre_y)?,
                    scale: number("SCALE", scale)?,
                };
                (size, tiles, view)
            }
            _ => {
                let given = arguments.len();
                let message = format!("2 or 5 arguments expected, {given} given");
                return Err(Failure::Usage(message));
            }
        };
        let (size, tiles) = (number("SIZE", size)?, number("TILES", tiles)?);
        let tile = Tile::new(view, size, tiles, cli::task_index()?).map_err(Failure::Usage)?;
        let mut output = BufWriter::new(io::stdout().lock());
        for row in tile.rows() {
            output.write_all(&row)?;
        }
        Ok(output.flush()?)
    })
}
