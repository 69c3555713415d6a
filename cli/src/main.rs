//! acb
fn main(){}
