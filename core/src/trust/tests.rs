//! Formulas against the numbers of independent models, decisions as tables, and whole populations of liars.

mod decisions;
mod formulas;
mod population;
