//! placeholder

use std::sync::Arc;

use super::plane::Plane;
use crate::config::Config;

#[derive(Debug)]
pub(crate) struct Prober;

impl Prober {
    pub(crate) fn new(_plane: Arc<Plane>) -> Self {
        Self
    }
    pub(crate) fn take_up(&self, _config: &Config) {}
}
