//! Random messages, made from the descriptors of the API: every method, every field, and nothing known
//! of what they mean. The same seed makes the same messages.

use std::collections::HashMap;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// How deep messages are in messages.
const DEPTH: usize = 6;

/// Numbers that look the same as random ones (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

/// What the draws of a run begin with: `SEED=n` draws others.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

impl Random {
    /// Of a round, each of which draws something else.
    #[must_use]
    pub fn of_round(number: usize) -> Self {
        Self(seed().wrapping_mul(999_983).wrapping_add(number as u64))
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % limit as u64).unwrap_or(0)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A method of the API.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/bosun.v1.Containers/Create`.
    pub path: String,
    input: String,
    /// Whether a client may send several messages.
    pub takes_several: bool,
    /// Whether it gets several.
    pub gives_several: bool,
}

/// All messages of the API.
#[derive(Debug)]
pub struct Schema {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
    pub methods: Vec<Method>,
}

/// What texts there may be in a field, by its name; the ones of `""` are of all others.
pub type Texts = HashMap<&'static str, Vec<String>>;

/// What a message is made of.
#[derive(Clone, Copy, Debug)]
struct Taste<'a> {
    texts: &'a Texts,
    sparse: bool,
}

impl Taste<'_> {
    fn wants(self, field: &FieldDescriptorProto) -> bool {
        let is_one = field.r#type() == Type::Message && field.label() != Label::Repeated;
        !self.sparse || is_one || self.texts.contains_key(field.name())
    }
}

impl Schema {
    /// Of an encoded `FileDescriptorSet`.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn of(descriptors: &[u8]) -> Self {
        let set = FileDescriptorSet::decode(descriptors).expect("a set of descriptors");
        let mut schema =
            Self { messages: HashMap::new(), enums: HashMap::new(), methods: Vec::new() };
        for file in set.file {
            let package = format!(".{}", file.package());
            for message in file.message_type {
                schema.add(&package, message);
            }
            for one in file.enum_type {
                schema.enums.insert(format!("{package}.{}", one.name()), one);
            }
            for service in file.service {
                let methods = service.method.iter().map(|method| Method {
                    path: format!(
                        "/{}.{}/{}",
                        file.package.as_deref().unwrap_or(""),
                        service.name(),
                        method.name()
                    ),
                    input: method.input_type().to_owned(),
                    takes_several: method.client_streaming(),
                    gives_several: method.server_streaming(),
                });
                schema.methods.extend(methods);
            }
        }
        schema
    }

    fn add(&mut self, scope: &str, mut message: DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for inner in std::mem::take(&mut message.nested_type) {
            self.add(&name, inner);
        }
        for one in std::mem::take(&mut message.enum_type) {
            self.enums.insert(format!("{name}.{}", one.name()), one);
        }
        self.messages.insert(name, message);
    }

    /// A message that a method may get. Every second one has little but what `texts` knows by name, for
    /// one of everything is hardly ever right.
    #[must_use]
    pub fn input(&self, method: &Method, random: &mut Random, texts: &Texts) -> Vec<u8> {
        let taste = Taste { texts, sparse: random.one_in(2) };
        self.message(&method.input, random, taste, 0)
    }

    fn message(&self, name: &str, random: &mut Random, taste: Taste<'_>, depth: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(message) = self.messages.get(name) else { return bytes };
        // One member of each choice.
        let mut chosen: HashMap<i32, i32> = HashMap::new();
        for (index, _) in message.oneof_decl.iter().enumerate() {
            let index = i32::try_from(index).unwrap_or(0);
            let members: Vec<i32> = message
                .field
                .iter()
                .filter(|field| field.oneof_index == Some(index))
                .map(FieldDescriptorProto::number)
                .collect();
            if !members.is_empty() {
                chosen.insert(index, *random.pick(&members));
            }
        }
        for field in &message.field {
            let left_out = match field.oneof_index {
                Some(index) => chosen.get(&index) != Some(&field.number()) || random.one_in(8),
                None if taste.wants(field) => random.one_in(3),
                None => !random.one_in(20),
            };
            if left_out || depth > DEPTH {
                continue;
            }
            let count = match field.label() {
                Label::Repeated if random.one_in(50) => 200,
                Label::Repeated => random.below(4),
                Label::Optional | Label::Required => 1,
            };
            for _ in 0..count {
                self.field(field, random, taste, depth, &mut bytes);
            }
        }
        bytes
    }

    fn field(
        &self,
        field: &FieldDescriptorProto,
        random: &mut Random,
        taste: Taste<'_>,
        depth: usize,
        bytes: &mut Vec<u8>,
    ) {
        let number = u32::try_from(field.number()).unwrap_or(1);
        let delimited = |content: &[u8], bytes: &mut Vec<u8>| {
            encode_key(number, WireType::LengthDelimited, bytes);
            encode_varint(content.len() as u64, bytes);
            bytes.extend_from_slice(content);
        };
        match field.r#type() {
            Type::Message | Type::Group => {
                let content = self.message(field.type_name(), random, taste, depth + 1);
                delimited(&content, bytes);
            }
            Type::String => {
                let own = taste.texts.get(field.name()).or(taste.texts.get(""));
                let text = own.map(|texts| random.pick(texts).clone());
                delimited(text.unwrap_or_default().as_bytes(), bytes);
            }
            Type::Bytes => {
                let length = *random.pick(&[0, 1, 7, 512, 40_000]);
                let content: Vec<u8> =
                    (0..length).map(|_| random.number().to_le_bytes()[0]).collect();
                delimited(&content, bytes);
            }
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                encode_key(number, WireType::SixtyFourBit, bytes);
                bytes.extend(random.number().to_le_bytes());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                encode_key(number, WireType::ThirtyTwoBit, bytes);
                bytes.extend(&random.number().to_le_bytes()[..4]);
            }
            Type::Bool => {
                encode_key(number, WireType::Varint, bytes);
                encode_varint(random.number() % 2, bytes);
            }
            Type::Enum => {
                let known = self.enums.get(field.type_name()).map_or(1, |one| one.value.len());
                encode_key(number, WireType::Varint, bytes);
                // Sometimes one that there is not.
                encode_varint(random.below(known + 1) as u64, bytes);
            }
            Type::Int32
            | Type::Int64
            | Type::Uint32
            | Type::Uint64
            | Type::Sint32
            | Type::Sint64 => {
                const NUMBERS: [u64; 12] =
                    [0, 1, 2, 3, 80, 1024, 65_535, 1 << 24, 1 << 31, 1 << 40, 1 << 63, u64::MAX];
                let any = random.number();
                encode_key(number, WireType::Varint, bytes);
                encode_varint(if random.one_in(6) { any } else { *random.pick(&NUMBERS) }, bytes);
            }
        }
    }
}

/// The same message, no longer well-formed, or not quite the same.
pub fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.extend((0..random.below(20)).map(|_| random.number().to_le_bytes()[0])),
        _ => {
            for _ in 0..=random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len());
                    bytes[at] = random.number().to_le_bytes()[0];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bosun_proto::v1;

    use super::*;

    #[test]
    fn every_message_can_be_read_and_fields_are_met() {
        let schema = Schema::of(bosun_proto::FILE_DESCRIPTORS);
        let texts = Texts::from([("", vec!["x".to_owned()]), ("name", vec!["one".to_owned()])]);
        let create =
            schema.methods.iter().find(|method| method.path.ends_with("Containers/Create"));
        let create = create.expect("a method");
        let mut random = Random(1);
        let mut names = 0;
        for _ in 0..200 {
            let bytes = schema.input(create, &mut random, &texts);
            let request = v1::CreateRequest::decode(&*bytes).expect("well-formed");
            names += usize::from(request.options.is_some_and(|options| options.name == "one"));
        }
        assert!(names > 30, "{names}");
        assert!(schema.methods.len() > 60 && schema.methods.iter().any(|one| one.takes_several));
    }
}
