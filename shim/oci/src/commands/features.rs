//! `features`: what this runtime can do, as the specification's `features.md` has it.

use super::print_json;
use crate::error::Error;

pub(crate) fn run() -> Result<(), Error> {
    print_json(&shim_plan::features::document())
}
