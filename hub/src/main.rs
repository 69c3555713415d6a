//! acb-hub
fn main(){}
