//! Points on the earth, and how far apart they are.

use super::Value;

/// Mean radius of the earth in metres (IUGG); distances on the sphere differ from those on the ellipsoid by 0.5 % at
/// most.
pub const EARTH_RADIUS_METERS: f64 = 6_371_008.8;

/// A point: latitude in [-90, 90] and longitude in [-180, 180], in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoPoint {
    lat: f64,
    lon: f64,
}

impl GeoPoint {
    /// `None` where a number is outside its range.
    pub fn new(lat: f64, lon: f64) -> Option<Self> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(Self { lat, lon })
    }

    /// The point that a metadata value is: an object with the numbers `lat` and `lon`. Other keys do not count.
    pub fn of(value: &Value) -> Option<Self> {
        let Value::Object(object) = value else { return None };
        let number = |name| match object.get(name)? {
            Value::Int(x) => Some(*x as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        };
        Self::new(number("lat")?, number("lon")?)
    }

    /// Degrees north.
    pub fn lat(self) -> f64 {
        self.lat
    }

    /// Degrees east.
    pub fn lon(self) -> f64 {
        self.lon
    }

    /// Great-circle distance in metres, by the haversine formula (Sinnott 1984).
    pub fn distance_meters(self, other: Self) -> f64 {
        let (lat, other_lat) = (self.lat.to_radians(), other.lat.to_radians());
        let lats = ((other_lat - lat) / 2.0).sin();
        let lons = ((other.lon - self.lon).to_radians() / 2.0).sin();
        let h = lats * lats + lat.cos() * other_lat.cos() * lons * lons;
        2.0 * EARTH_RADIUS_METERS * h.clamp(0.0, 1.0).sqrt().asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(lat: f64, lon: f64) -> GeoPoint {
        GeoPoint::new(lat, lon).unwrap()
    }

    #[test]
    fn distances_are_those_of_the_sphere() {
        let (oslo, rome) = (point(59.9139, 10.7522), point(41.9028, 12.4964));
        assert!((oslo.distance_meters(rome) - 2_006_000.0).abs() < 5_000.0, "{}", oslo.distance_meters(rome));
        let degree = EARTH_RADIUS_METERS.to_radians();
        assert!((point(0.0, 0.0).distance_meters(point(1.0, 0.0)) - degree).abs() < 1e-6);
        assert!((point(0.0, 179.5).distance_meters(point(0.0, -179.5)) - degree).abs() < 1e-3, "across the date line");
        assert!(point(90.0, 10.0).distance_meters(point(90.0, -100.0)) < 1e-6, "one pole");
        let half = EARTH_RADIUS_METERS * std::f64::consts::PI;
        assert!((point(0.0, 0.0).distance_meters(point(0.0, 180.0)) - half).abs() < 1e-3);
    }

    #[test]
    fn points_have_both_numbers_in_range() {
        let object = |lat, lon| Value::Object([("lat".to_owned(), lat), ("lon".to_owned(), lon)].into());
        assert_eq!(GeoPoint::of(&object(Value::Int(1), Value::Float(2.5))), Some(point(1.0, 2.5)));
        assert_eq!(GeoPoint::of(&object(Value::Float(90.1), Value::Int(0))), None);
        assert_eq!(GeoPoint::of(&object(Value::Int(0), Value::Int(181))), None);
        assert_eq!(GeoPoint::of(&object(Value::String("1".into()), Value::Int(0))), None);
        assert_eq!(GeoPoint::of(&Value::Null), None);
        assert_eq!(GeoPoint::new(f64::NAN, 0.0), None);
    }
}
