//! stub
use crate::report::{Series, Table};
pub fn measure(_t: &mut Table, _h: bool) -> std::io::Result<Series> {
    Ok(Series::one(1.0))
}
