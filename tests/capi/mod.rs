//! The C API as the sources of src/capi state it, read with syn: what include/llm_api.json says, and what the tests of
//! the C API are driven by.

#![allow(dead_code, reason = "each test program uses a part of this module")]

pub mod c;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syn::{Attribute, Expr, FnArg, Item, ItemFn, ReturnType, Type};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of src/capi that export something, in the order of the header.
pub fn sources() -> Vec<PathBuf> {
    let modules = syn::parse_file(&read("src/capi/mod.rs")).expect("src/capi/mod.rs parses");
    let files = modules.items.iter().filter_map(|item| match item {
        Item::Mod(module) => Some(PathBuf::from(format!("src/capi/{}.rs", module.ident))),
        _ => None,
    });
    files.filter(|file| read(file).contains("no_mangle")).collect()
}

/// One parameter of a function or of a callback.
pub struct Param {
    pub name: String,
    /// As in C, without names of typedefs resolved: "const char *".
    pub c_type: String,
    /// "in", "out" or "in,out".
    pub direction: String,
    /// Meaningful for pointers and callbacks.
    pub nullable: bool,
    /// The parameter that tells how many elements there are; if it is 0, NULL will do.
    pub length: Option<String>,
    pub doc: String,
}

pub struct Function {
    pub name: String,
    pub file: String,
    pub doc: String,
    pub params: Vec<Param>,
    pub returns: String,
    pub must_use: bool,
    pub item: ItemFn,
}

pub struct Field {
    pub name: String,
    pub c_type: String,
    /// Of an array.
    pub count: Option<u64>,
    pub offset: u64,
    pub size: u64,
    pub doc: String,
}

pub struct Struct {
    pub name: String,
    pub doc: String,
    pub fields: Vec<Field>,
    pub size: u64,
}

#[derive(Default)]
pub struct Api {
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    /// Name and documentation.
    pub objects: Vec<(String, String)>,
    /// Name, documentation, parameters, what it returns.
    pub callbacks: Vec<(String, String, Vec<Param>, String)>,
    /// Name, documentation, C type.
    pub aliases: Vec<(String, String, String)>,
    /// Name, documentation, C type, value.
    pub constants: Vec<(String, String, String, u64)>,
}

impl Api {
    pub fn read() -> Api {
        let mut api = Api::default();
        for path in sources() {
            let file = syn::parse_file(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            for item in file.items {
                api.add(&name, item);
            }
        }
        api
    }

    fn add(&mut self, file: &str, item: Item) {
        match item {
            Item::Fn(item) if has(&item.attrs, "unsafe") => self.functions.push(function(file, item)),
            Item::Const(item) if is_public(&item.vis) => {
                let value = match *item.expr {
                    Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(value), .. }) => {
                        value.base10_parse().expect("a number")
                    }
                    _ => panic!("{} is no literal number, which cbindgen would drop", item.ident),
                };
                self.constants.push((item.ident.to_string(), doc(&item.attrs), c_type(&item.ty), value));
            }
            Item::Type(item) if is_public(&item.vis) => {
                let (name, doc) = (item.ident.to_string(), doc(&item.attrs));
                match function_pointer(&item.ty) {
                    Some((params, returns)) => self.callbacks.push((name, doc, params, returns)),
                    None => self.aliases.push((name, doc, c_type(&item.ty))),
                }
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let (name, doc) = (item.ident.to_string(), doc(&item.attrs));
                if has(&item.attrs, "repr") {
                    let layout = self.layout(&name, doc, &item.fields);
                    self.structs.push(layout);
                } else {
                    self.objects.push((name, doc));
                }
            }
            _ => {}
        }
    }

    /// Offsets by the rules of C on machines with pointers of 64 bits.
    fn layout(&self, name: &str, documentation: String, fields: &syn::Fields) -> Struct {
        let (mut end, mut largest, mut out) = (0u64, 1, Vec::new());
        for field in fields {
            let (element, count) = match &field.ty {
                Type::Array(array) => {
                    let Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(n), .. }) = &array.len else {
                        panic!("{name} has an array without a literal length")
                    };
                    (&*array.elem, Some(n.base10_parse::<u64>().expect("a number")))
                }
                other => (other, None),
            };
            let c_type = c_type(element);
            let (size, align) = self.size_and_align(&c_type);
            let size = size * count.unwrap_or(1);
            let offset = end.next_multiple_of(align);
            let field_name = field.ident.as_ref().expect("fields have names").to_string();
            out.push(Field { name: field_name, c_type, count, offset, size, doc: doc(&field.attrs) });
            end = offset + size;
            largest = largest.max(align);
        }
        Struct { name: name.to_owned(), doc: documentation, fields: out, size: end.next_multiple_of(largest) }
    }

    fn size_and_align(&self, c_type: &str) -> (u64, u64) {
        if c_type.ends_with('*') || self.callbacks.iter().any(|(name, ..)| name == c_type) {
            return (8, 8);
        }
        if let Some(inner) = self.structs.iter().find(|s| s.name == c_type) {
            return (inner.size, 8);
        }
        let resolved = self.aliases.iter().find(|(name, ..)| name == c_type).map_or(c_type, |(_, _, of)| of);
        let size = match resolved {
            "bool" | "uint8_t" | "int8_t" => 1,
            "uint32_t" | "int32_t" | "float" => 4,
            "uint64_t" | "int64_t" | "double" | "size_t" => 8,
            // A type of a file that is read later.
            "llm_isa_t" | "llm_kv_type_t" => 4,
            other => panic!("no size known for {other}"),
        };
        (size, size)
    }

    pub fn is_callback(&self, c_type: &str) -> bool {
        self.callbacks.iter().any(|(name, ..)| name == c_type)
    }

    /// Whether it begins with `llm_` and the name of an object, a struct, or of a section without objects.
    pub fn is_named_after_an_object(&self, function: &str) -> bool {
        let types = self.objects.iter().map(|(name, _)| name).chain(self.structs.iter().map(|s| &s.name));
        let mut prefixes = types.map(|name| format!("{}_", name.trim_end_matches("_t")));
        let others = ["llm_log_", "llm_status_name", "llm_version", "llm_abi_version", "llm_isa", "llm_physical_cores"];
        prefixes.any(|prefix| function.starts_with(&prefix)) || others.iter().any(|other| function.starts_with(other))
    }

    /// Whether NULL can be passed for it.
    pub fn is_pointer(&self, param: &Param) -> bool {
        param.c_type.ends_with('*') || self.is_callback(&param.c_type)
    }

    /// What include/llm_api.json holds.
    pub fn to_json(&self) -> Value {
        let params = |params: &[Param]| -> Vec<Value> {
            let one = |p: &Param| {
                let mut value = json!({"name": p.name, "type": p.c_type, "direction": p.direction, "doc": p.doc});
                if self.is_pointer(p) {
                    value["nullable"] = p.nullable.into();
                }
                if let Some(length) = &p.length {
                    value["length"] = length.as_str().into();
                }
                value
            };
            params.iter().map(one).collect()
        };
        let constant = |name: &str| self.constants.iter().find(|c| c.0 == name).expect("a version").3;
        let version = ["MAJOR", "MINOR", "PATCH"].map(|part| constant(&format!("LLM_VERSION_{part}")).to_string());
        json!({
            "version": version.join("."),
            "abi_version": constant("LLM_ABI_VERSION"),
            "constants": self.constants.iter().map(|(name, doc, c_type, value)|
                json!({"name": name, "type": c_type, "value": value, "doc": doc})).collect::<Vec<_>>(),
            "types": self.aliases.iter().map(|(name, doc, c_type)|
                json!({"name": name, "type": c_type, "doc": doc})).collect::<Vec<_>>(),
            "callbacks": self.callbacks.iter().map(|(name, doc, p, returns)|
                json!({"name": name, "params": params(p), "returns": returns, "doc": doc})).collect::<Vec<_>>(),
            "structs": self.structs.iter().map(|s| json!({"name": s.name, "size": s.size, "doc": s.doc,
                "fields": s.fields.iter().map(|f| {
                    let mut value = json!({"name": f.name, "type": f.c_type, "offset": f.offset, "size": f.size,
                        "doc": f.doc});
                    if let Some(count) = f.count {
                        value["count"] = count.into();
                    }
                    value
                }).collect::<Vec<_>>()})).collect::<Vec<_>>(),
            "objects": self.objects.iter().map(|(name, doc)| json!({"name": name, "doc": doc})).collect::<Vec<_>>(),
            "functions": self.functions.iter().map(|f| json!({"name": f.name, "section": f.file,
                "params": params(&f.params), "returns": f.returns, "nodiscard": f.must_use,
                "doc": tagged(&f.doc).0, "thread": tag(&f.doc, "thread"), "status": tag(&f.doc, "status"),
                "return_doc": tag(&f.doc, "return")})).collect::<Vec<_>>(),
        })
    }

    /// The header: cbindgen's, with nullability from our documentation and a suffix, which cbindgen cannot express.
    pub fn header(&self) -> String {
        let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml parses");
        let mut builder = cbindgen::Builder::new().with_config(config);
        for source in sources() {
            builder = builder.with_src(root().join(source));
        }
        let mut text = Vec::new();
        builder.generate().expect("cbindgen reads src/capi").write(&mut text);
        let mut text = String::from_utf8(text).expect("a header is UTF-8");
        for function in &self.functions {
            // Examples in comments call functions too.
            let name = format!("{}(", function.name);
            let declared = |at: &usize| text[..*at].rsplit('\n').next().is_some_and(|line| !line.starts_with(' '));
            let start = text.match_indices(&name).map(|(at, _)| at).find(declared);
            let start = start.unwrap_or_else(|| panic!("cbindgen dropped {}", function.name));
            let end = start + text[start..].find(");").expect("a declaration ends");
            let mut declaration = text[start..end + 1].replace("struct llm_", "llm_");
            for param in function.params.iter().filter(|p| self.is_pointer(p)) {
                let mark = if param.nullable || param.length.is_some() { "LLM_NULLABLE " } else { "LLM_NONNULL " };
                // The name stands before a comma or the end, after a star or a space.
                let at = [",", ")"].iter().find_map(|after| {
                    let name = format!("{}{after}", param.name);
                    let mut places = declaration.match_indices(&name).map(|(at, _)| at);
                    places.find(|at| matches!(declaration.as_bytes()[at - 1], b'*' | b' '))
                });
                let at = at.unwrap_or_else(|| panic!("{} has no parameter {}", function.name, param.name));
                declaration.insert_str(at, mark);
            }
            text.replace_range(start..end + 1, &declaration);
        }
        // As a decimal number without a suffix C would take it for a long.
        text.replace(" 4294967295\n", " 4294967295u\n")
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

/// The doc comment, one line per line.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            value: Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) => Some(text.value().strip_prefix(' ').map_or_else(|| text.value(), str::to_owned)),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The text before the first tag, and each tag with its text.
fn tagged(doc: &str) -> (String, BTreeMap<String, String>) {
    let (mut text, mut tags, mut current) = (String::new(), BTreeMap::new(), None::<String>);
    for line in doc.lines() {
        let known = ["@param", "@return", "@thread", "@status"].iter().any(|tag| line.starts_with(tag));
        if known {
            let words = if line.starts_with("@param") { 2 } else { 1 };
            let mut parts = line.splitn(words + 1, ' ');
            let key = parts.by_ref().take(words).collect::<Vec<_>>().join(" ");
            tags.insert(key.clone(), parts.next().unwrap_or_default().to_owned());
            current = Some(key);
        } else if let Some(value) = current.as_ref().and_then(|key| tags.get_mut(key)) {
            value.push(' ');
            value.push_str(line.trim());
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    (text.trim().to_owned(), tags)
}

/// The text of a tag.
pub fn tag(doc: &str, name: &str) -> Option<String> {
    tagged(doc).1.get(&format!("@{name}")).cloned()
}

fn function(file: &str, item: ItemFn) -> Function {
    let documentation = doc(&item.attrs);
    let tags = tagged(&documentation).1;
    let params = item.sig.inputs.iter().map(|argument| {
        let FnArg::Typed(argument) = argument else { panic!("{} has a self", item.sig.ident) };
        let syn::Pat::Ident(name) = &*argument.pat else { panic!("{} has a pattern", item.sig.ident) };
        let name = name.ident.to_string().trim_start_matches("r#").to_owned();
        let found = tags.iter().find(|(key, _)| {
            key.strip_prefix("@param[").and_then(|key| key.split_once("] ")).is_some_and(|(_, n)| n == name)
        });
        let (key, text) = found.unwrap_or_else(|| panic!("{} does not document {name}", item.sig.ident));
        let direction = key["@param[".len()..].split(']').next().unwrap_or_default().to_owned();
        Param {
            name,
            c_type: c_type(&argument.ty),
            direction,
            nullable: text.contains("@nullable"),
            length: None,
            doc: text.replace("@nullable ", ""),
        }
    });
    let mut params: Vec<Param> = params.collect();
    for i in 1..params.len() {
        let (pointer, length) = (&params[i - 1], &params[i]);
        let counts = ["size", "count", "capacity"].iter().any(|end| length.name.ends_with(end));
        // The first parameter is the function's object, if it is one.
        let object = i == 1 && pointer.c_type.starts_with("llm_");
        if counts && !object && length.c_type == "size_t" && pointer.c_type.ends_with('*') && !pointer.nullable {
            let length = params[i].name.clone();
            // A number may be that of two arrays, as of keys and values.
            let both = i > 2 && params[i - 2].c_type == params[i - 1].c_type && params[i - 1].direction == "in";
            if both {
                params[i - 2].length = Some(length.clone());
            }
            params[i - 1].length = Some(length);
        }
    }
    Function {
        name: item.sig.ident.to_string(),
        file: file.to_owned(),
        params,
        doc: documentation.clone(),
        returns: match &item.sig.output {
            ReturnType::Default => "void".to_owned(),
            ReturnType::Type(_, returned) => c_type(returned),
        },
        must_use: has(&item.attrs, "must_use"),
        item,
    }
}

/// The parameters and the result of an `Option<unsafe extern "C" fn(…)>`.
fn function_pointer(ty: &Type) -> Option<(Vec<Param>, String)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let Some(syn::GenericArgument::Type(Type::BareFn(function))) = arguments.args.first() else { return None };
    let params = function.inputs.iter().map(|argument| {
        let name = argument.name.as_ref().expect("parameters of callbacks have names").0.to_string();
        let c_type = c_type(&argument.ty);
        let direction = if c_type == "void *" && name != "user_data" { "out" } else { "in" };
        let nullable = name == "user_data";
        Param { name, c_type, direction: direction.to_owned(), nullable, length: None, doc: String::new() }
    });
    let returns = match &function.output {
        ReturnType::Default => "void".to_owned(),
        ReturnType::Type(_, returned) => c_type(returned),
    };
    Some((params.collect(), returns))
}

/// A Rust type as C writes it.
fn c_type(ty: &Type) -> String {
    match ty {
        Type::Ptr(pointer) => {
            let inner = c_type(&pointer.elem);
            let space = if inner.ends_with('*') { "" } else { " " };
            // `const` of a pointer to a pointer would stand elsewhere; there is none.
            let constant = if pointer.const_token.is_some() { "const " } else { "" };
            format!("{constant}{inner}{space}*")
        }
        Type::Path(path) => {
            let name = path.path.segments.last().expect("a type has a name").ident.to_string();
            let c = match name.as_str() {
                "u8" => "uint8_t",
                "i16" => "int16_t",
                "u16" => "uint16_t",
                "i8" => "int8_t",
                "u32" => "uint32_t",
                "i32" => "int32_t",
                "u64" => "uint64_t",
                "i64" => "int64_t",
                "usize" => "size_t",
                "f32" => "float",
                "f64" => "double",
                "c_char" => "char",
                "c_void" => "void",
                other => other,
            };
            c.to_owned()
        }
        _ => panic!("a type that C has no name for"),
    }
}
