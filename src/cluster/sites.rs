//! Both sites of a plan.

use std::path::Path;
use std::sync::Arc;

use super::{Cluster, Error};
use crate::history::event::Site;
use crate::plan::model;

/// The clusters of a plan by site.
#[derive(Debug, Clone)]
pub struct Sites {
    primary: Arc<Cluster>,
    secondary: Arc<Cluster>,
}

impl Sites {
    /// Two clusters as the sites of a plan.
    pub const fn new(primary: Arc<Cluster>, secondary: Arc<Cluster>) -> Self {
        Self { primary, secondary }
    }

    /// Opens both sites without calling them; a site that is down opens too. Relative kubeconfig
    /// paths are relative to `base`, the directory of the plan.
    pub async fn open(sites: &model::Sites, base: &Path) -> Result<Self, Error> {
        Ok(Self {
            primary: Cluster::open(Site::Primary, &sites.primary, base).await?,
            secondary: Cluster::open(Site::Secondary, &sites.secondary, base).await?,
        })
    }

    /// Opens both sites and makes sure that they answer.
    pub async fn connect(sites: &model::Sites, base: &Path) -> Result<Self, Error> {
        let both = Self::open(sites, base).await?;
        both.primary.versions().await?;
        both.secondary.versions().await?;
        Ok(both)
    }

    /// The cluster of a site.
    pub const fn of(&self, site: Site) -> &Arc<Cluster> {
        match site {
            Site::Primary => &self.primary,
            Site::Secondary => &self.secondary,
        }
    }
}
