//! Opening the device that candle runs models on.

use std::sync::{Mutex, PoisonError};

use candle_core::utils::{cuda_is_available, metal_is_available};

use super::super::{Device, EmbedError};

/// Devices that were opened, and what was asked for. Each is opened once: all models of a process share it, and a
/// device that could not be had is warned of once.
static OPENED: Mutex<Vec<(Device, candle_core::Device)>> = Mutex::new(Vec::new());

/// The device that was asked for; for [`Device::Auto`] the one that this build and machine have beside the CPU, else
/// the CPU.
///
/// # Errors
/// [`EmbedError::Device`] where a device was named that this build or machine does not have.
pub(super) fn open(asked: Device) -> Result<candle_core::Device, EmbedError> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = opened.iter().find(|(known, _)| *known == asked) {
        return Ok(device.clone());
    }
    let device = match asked {
        Device::Auto => or_cpu(match (cuda_is_available(), metal_is_available()) {
            (true, _) => candle_core::Device::new_cuda(0),
            (_, true) => candle_core::Device::new_metal(0),
            _ => Ok(candle_core::Device::Cpu),
        }),
        Device::Cpu => candle_core::Device::Cpu,
        Device::Cuda(number) => named(asked, cuda_is_available(), "cuda", || candle_core::Device::new_cuda(number))?,
        Device::Metal(number) => {
            named(asked, metal_is_available(), "metal", || candle_core::Device::new_metal(number))?
        }
    };
    opened.push((asked, device.clone()));
    Ok(device)
}

/// What was opened, or the CPU: the features say what a build can do, not what the machine has.
fn or_cpu(opened: candle_core::Result<candle_core::Device>) -> candle_core::Device {
    opened.unwrap_or_else(|error| {
        tracing::warn!(%error, "the device of this build cannot be used, so models run on the CPU");
        candle_core::Device::Cpu
    })
}

/// The device that was named, which needs a `feature` of the build.
fn named(
    asked: Device,
    built: bool,
    feature: &str,
    open: impl FnOnce() -> candle_core::Result<candle_core::Device>,
) -> Result<candle_core::Device, EmbedError> {
    if !built {
        let reason = format!("this program was built without the feature `{feature}`");
        return Err(EmbedError::Device { asked, reason });
    }
    open().map_err(|error| EmbedError::Device { asked, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> candle_core::Result<candle_core::Device> {
        Err(candle_core::Error::Msg("no device".to_owned()))
    }

    #[test]
    fn a_device_that_was_not_named_and_cannot_be_opened_leaves_the_cpu() {
        assert!(or_cpu(broken()).is_cpu());
    }

    #[test]
    fn the_cpu_is_there_whatever_the_build_is() {
        assert!(open(Device::Cpu).unwrap().is_cpu());
    }

    #[test]
    fn a_device_that_was_named_and_cannot_be_opened_is_an_error() {
        let error = named(Device::Cuda(1), true, "cuda", broken).unwrap_err().to_string();
        assert_eq!(
            error,
            "models cannot run on cuda:1: no device; start with `--device auto` to run them on what there is"
        );
        let error = named(Device::Metal(0), false, "metal", || panic!("it is not there to be opened")).unwrap_err();
        assert!(error.to_string().contains("built without the feature `metal`"), "{error}");
    }
}
