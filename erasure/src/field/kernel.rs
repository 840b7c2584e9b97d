//! Which instructions do the work: found out once, from the processor this runs on.
//!
//! Invariant: a [`Kernel`] exists only where the processor has its instructions. All `unsafe` calls of kernels lean on this,
//! so the constructors are here, and nothing else can name a kernel.

use std::sync::OnceLock;

/// A way of multiplying that this processor can do. All of them give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

/// The kernels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni256,
    #[cfg(target_arch = "x86_64")]
    Gfni512,
}

/// All kernels, slowest first.
const KINDS: &[Kind] = &[
    Kind::Scalar,
    #[cfg(target_arch = "x86_64")]
    Kind::Avx2,
    #[cfg(target_arch = "x86_64")]
    Kind::Gfni256,
    #[cfg(target_arch = "x86_64")]
    Kind::Gfni512,
];

impl Kernel {
    /// The fastest kernel of this processor. It asks the processor the first time only.
    pub fn fastest() -> Kernel {
        static FASTEST: OnceLock<Kernel> = OnceLock::new();
        *FASTEST.get_or_init(|| Kernel::available().last().expect("the scalar kernel needs nothing"))
    }

    /// Every kernel that this processor can run, slowest first. For tests and measurements.
    pub fn available() -> impl Iterator<Item = Kernel> {
        KINDS.iter().filter(|kind| kind.is_available()).map(|kind| Kernel(*kind))
    }

    /// What it is called: `scalar`, `avx2`, `gfni-256` or `gfni-512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => "gfni-256",
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni512 => "gfni-512",
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}

impl Kind {
    /// The features that each kernel's functions are compiled for, no fewer. The detection also asks whether the
    /// operating system saves the wide registers.
    fn is_available(self) -> bool {
        match self {
            Kind::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("gfni")
            }
        }
    }
}
