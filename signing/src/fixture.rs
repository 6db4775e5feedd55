//! Components for tests: made from WIT, with functions that trap when called.

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmSignature, WasmType};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WasmExport, WasmExportKind, WasmImport, WorldId, WorldItem};

pub(crate) const GATEWAY_WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
pub(crate) const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");

/// The component of `testdata/sample`, without docs.
pub(crate) fn sample() -> Vec<u8> {
    component(&std::fs::read_to_string(format!("{TESTDATA}/sample/sample.wit")).expect("sample.wit"))
}

/// A component of the only world of `wit`, a package that may use `viworks:gateway`.
pub(crate) fn component(wit: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_path(GATEWAY_WIT).expect("the gateway's WIT");
    let package = resolve.push_str("test.wit", wit).unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.select_world(&[package], None).expect("one world");
    let mut module = module(&resolve, world);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module that fits");
    encoder.encode().expect("a component")
}

/// A core module that imports and exports all that the world says.
fn module(resolve: &Resolve, world: WorldId) -> Vec<u8> {
    const ABI: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
    let (mut types, mut imports, mut functions) = (TypeSection::new(), ImportSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let (mut imported, mut defined) = (0, Vec::new());
    for (key, item) in &resolve.worlds[world].imports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for func in resolve.interfaces[*id].functions.values() {
            let import = WasmImport::Func { interface: Some(key), func };
            let (module, name) = resolve.wasm_import_name(ABI, import);
            push_type(&mut types, &resolve.wasm_signature(AbiVariant::GuestImport, func));
            imports.import(&module, &name, EntityType::Function(imported));
            imported += 1;
        }
    }
    for (key, item) in &resolve.worlds[world].exports {
        let functions = match item {
            WorldItem::Interface { id, .. } => {
                resolve.interfaces[*id].functions.values().map(|f| (Some(key), f)).collect::<Vec<_>>()
            }
            WorldItem::Function(func) => vec![(None, func)],
            WorldItem::Type { .. } => continue,
        };
        for (interface, func) in functions {
            let export = WasmExport::Func { interface, func, kind: WasmExportKind::Normal };
            push_type(&mut types, &resolve.wasm_signature(AbiVariant::GuestExport, func));
            defined.push(resolve.wasm_export_name(ABI, export));
        }
    }
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    defined.push("cabi_realloc".to_owned());
    for (i, name) in (imported..).zip(&defined) {
        functions.function(i);
        exports.export(name, ExportKind::Func, i);
        let mut body = Function::new([]);
        body.instructions().unreachable().end();
        code.function(&body);
    }
    let mut memories = MemorySection::new();
    let memory = MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None };
    memories.memory(memory);
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}

fn push_type(types: &mut TypeSection, signature: &WasmSignature) {
    let core = |ty: &WasmType| match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    };
    types.ty().function(signature.params.iter().map(core), signature.results.iter().map(core));
}
