//! What texts look like that mean something, in the words of JSON Schema. Reading them is `input.rs`.

use utoipa::openapi::schema::{AnyOfBuilder, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// One line: no control characters.
const LINE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

const IPV4_NETWORK: &str =
    r"^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])/(3[0-2]|[12]?[0-9])$";

const IPV6_NETWORK: &str = concat!(
    r"^(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}|",
    r"([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}|",
    r"([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}|",
    r"[0-9a-fA-F]{1,4}:(:[0-9a-fA-F]{1,4}){1,6}|:(:[0-9a-fA-F]{1,4}){1,7}|::)/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$"
);

const BANS_CURSOR: &str = "^[0-9a-f]{1,16}-[0-9a-f]{1,2}-[0-9a-f]{1,32}-[0-9a-f]{1,2}$";

const ENTRIES_CURSOR: &str = "^[0-9]{1,19}$";

const DURATION: &str = "^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,12}s)?([0-9]{1,15}ms)?$";

/// An IPv4 or IPv6 address.
pub(super) struct Address;

/// An IPv4 or IPv6 address, or a network of them.
pub(super) struct AddressOrNetwork;

/// From 1s to 3650d, as a text or in seconds.
pub(super) struct BanDuration;

/// Why, in one line.
pub(super) struct Reason;

/// A name, in one line.
pub(super) struct Author;

/// Where the next page of a list of bans begins.
pub(super) struct BansCursor;

/// Where the next page of a list of entries begins.
pub(super) struct EntriesCursor;

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn of_format(format: KnownFormat) -> Object {
    text().format(Some(SchemaFormat::KnownFormat(format))).build()
}

fn any_of(description: &str, example: &str, kinds: impl IntoIterator<Item = Object>) -> RefOr<Schema> {
    let of = AnyOfBuilder::new().description(Some(description)).examples([example]);
    RefOr::T(Schema::AnyOf(kinds.into_iter().fold(of, AnyOfBuilder::item).build()))
}

impl ToSchema for Address {}

impl PartialSchema for Address {
    fn schema() -> RefOr<Schema> {
        let kinds = [KnownFormat::Ipv4, KnownFormat::Ipv6].map(of_format);
        any_of("An IPv4 or IPv6 address.", "192.0.2.7", kinds)
    }
}

impl ToSchema for AddressOrNetwork {}

impl PartialSchema for AddressOrNetwork {
    fn schema() -> RefOr<Schema> {
        let addresses = [KnownFormat::Ipv4, KnownFormat::Ipv6].map(of_format);
        let networks = [IPV4_NETWORK, IPV6_NETWORK].map(|pattern| text().pattern(Some(pattern)).build());
        any_of("An IPv4 or IPv6 address, or a network of them.", "192.0.2.7", addresses.into_iter().chain(networks))
    }
}

impl ToSchema for BanDuration {}

impl PartialSchema for BanDuration {
    fn schema() -> RefOr<Schema> {
        let seconds = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Number))
            .minimum(Some(1.0))
            .maximum(Some(315_360_000.0))
            .build();
        any_of("From 1s to 3650d: like 1h30m, or in seconds.", "1h", [text().pattern(Some(DURATION)).build(), seconds])
    }
}

impl ToSchema for Reason {}

impl PartialSchema for Reason {
    fn schema() -> RefOr<Schema> {
        text().description(Some("Why, in one line.")).max_length(Some(1_000)).pattern(Some(LINE)).build().into()
    }
}

impl ToSchema for Author {}

impl PartialSchema for Author {
    fn schema() -> RefOr<Schema> {
        let of = text().description(Some("Who is to be named as its author."));
        of.max_length(Some(100)).pattern(Some(LINE)).build().into()
    }
}

impl ToSchema for BansCursor {}

impl PartialSchema for BansCursor {
    fn schema() -> RefOr<Schema> {
        text().description(Some("`next_cursor` of the page before.")).pattern(Some(BANS_CURSOR)).build().into()
    }
}

impl ToSchema for EntriesCursor {}

impl PartialSchema for EntriesCursor {
    fn schema() -> RefOr<Schema> {
        text().description(Some("`next_cursor` of the page before.")).pattern(Some(ENTRIES_CURSOR)).build().into()
    }
}
