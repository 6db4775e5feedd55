//! Values survive the way to JSON and back, for every type that has JSON, and what does
//! not fit is refused with the path to it.

use proptest::prelude::*;
use serde_json::{Value, json};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Type, Val};
use wasmtime::{Config, Engine};

use super::{LowerError, Param, lift, lift_args, lower, supported};

/// The parameters of one imported function, for their types.
fn types(params: &str) -> Vec<Param> {
    let text = format!(
        r#"(component
            (type $point (record (field "x" s32) (field "y-axis" s32)))
            (import "point" (type $p (eq $point)))
            (type $shape-type (variant (case "empty") (case "circle" f64) (case "points" (list $p))))
            (import "shape" (type $shape (eq $shape-type)))
            (type $color-type (enum "red" "dark-blue"))
            (import "color" (type $color (eq $color-type)))
            (type $rights-type (flags "read" "write" "run-as-root"))
            (import "rights" (type $rights (eq $rights-type)))
            (type $all-type (record
                (field "truth" bool) (field "a" s8) (field "b" u8) (field "c" s16) (field "d" u16)
                (field "e" s32) (field "f" u32) (field "g" s64) (field "h" u64) (field "single" f32)
                (field "double" f64) (field "letter" char) (field "text" string) (field "color" $color)
                (field "rights" $rights) (field "shape" $shape) (field "maybe" (option $p))
                (field "pair" (tuple u32 string)) (field "bytes" (list u8))
                (field "nested" (list (list (option u32))))
                (field "either" (result $p (error string))) (field "done" (result))))
            (import "all" (type $all (eq $all-type)))
            (import "resource" (type $handle (sub resource)))
            (import "f" (func {params})))"#
    );
    let engine = Engine::new(Config::new().concurrency_support(false)).unwrap();
    let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
    let ty = component.component_type();
    let Some(ComponentItem::ComponentFunc(func)) = ty.get_import(&engine, "f").map(|item| item.ty) else {
        panic!("f is a function")
    };
    func.params().map(|(name, ty)| Param { name: name.replace('-', "_"), ty }).collect()
}

fn one(params: &str) -> Type {
    types(params).remove(0).ty
}

/// Any value of a type.
fn any_val(ty: &Type) -> BoxedStrategy<Val> {
    match ty {
        Type::Bool => any::<bool>().prop_map(Val::Bool).boxed(),
        Type::S8 => any::<i8>().prop_map(Val::S8).boxed(),
        Type::U8 => any::<u8>().prop_map(Val::U8).boxed(),
        Type::S16 => any::<i16>().prop_map(Val::S16).boxed(),
        Type::U16 => any::<u16>().prop_map(Val::U16).boxed(),
        Type::S32 => any::<i32>().prop_map(Val::S32).boxed(),
        Type::U32 => any::<u32>().prop_map(Val::U32).boxed(),
        Type::S64 => any::<i64>().prop_map(Val::S64).boxed(),
        Type::U64 => any::<u64>().prop_map(Val::U64).boxed(),
        Type::Float32 => prop_oneof![any::<f32>(), Just(f32::INFINITY), Just(0.1)].prop_map(Val::Float32).boxed(),
        Type::Float64 => prop_oneof![any::<f64>(), Just(f64::NEG_INFINITY)].prop_map(Val::Float64).boxed(),
        Type::Char => any::<char>().prop_map(Val::Char).boxed(),
        Type::String => any::<String>().prop_map(Val::String).boxed(),
        Type::List(list) => prop::collection::vec(any_val(&list.ty()), 0..4).prop_map(Val::List).boxed(),
        Type::Record(record) => {
            let fields: Vec<_> = record.fields().map(|f| (Just(f.name.to_owned()), any_val(&f.ty))).collect();
            fields.prop_map(Val::Record).boxed()
        }
        Type::Tuple(tuple) => tuple.types().map(|ty| any_val(&ty)).collect::<Vec<_>>().prop_map(Val::Tuple).boxed(),
        Type::Variant(variant) => {
            let cases: Vec<_> = variant.cases().map(|c| (c.name.to_owned(), any_payload(c.ty.as_ref()))).collect();
            prop::sample::select((0..cases.len()).collect::<Vec<_>>())
                .prop_flat_map(move |i| (Just(cases[i].0.clone()), cases[i].1.clone()))
                .prop_map(|(name, payload)| Val::Variant(name, payload))
                .boxed()
        }
        Type::Enum(names) => {
            prop::sample::select(names.names().map(str::to_owned).collect::<Vec<_>>()).prop_map(Val::Enum).boxed()
        }
        Type::Option(option) => {
            prop::option::of(any_val(&option.ty())).prop_map(|v| Val::Option(v.map(Box::new))).boxed()
        }
        Type::Result(result) => prop_oneof![
            any_payload(result.ok().as_ref()).prop_map(|v| Val::Result(Ok(v))),
            any_payload(result.err().as_ref()).prop_map(|v| Val::Result(Err(v))),
        ]
        .boxed(),
        Type::Flags(flags) => {
            let names: Vec<String> = flags.names().map(str::to_owned).collect();
            let most = names.len();
            prop::sample::subsequence(names, 0..=most).prop_map(Val::Flags).boxed()
        }
        other => panic!("{other:?} has no JSON"),
    }
}

fn any_payload(ty: Option<&Type>) -> BoxedStrategy<Option<Box<Val>>> {
    match ty {
        Some(ty) => any_val(ty).prop_map(|v| Some(Box::new(v))).boxed(),
        None => Just(None).boxed(),
    }
}

proptest! {
    #[test]
    fn every_value_comes_back_as_it_went(
        val in any_val(&one(r#"(param "v" $all)"#)).no_shrink(),
        list in any_val(&one(r#"(param "v" (list $shape))"#)).no_shrink(),
    ) {
        for (val, params) in [(val, r#"(param "v" $all)"#), (list, r#"(param "v" (list $shape))"#)] {
            let ty = one(params);
            let text = lower(&val, &ty, usize::MAX);
            prop_assert!(text.is_ok(), "{text:?}");
            let json: Value = serde_json::from_str(&text.unwrap_or_default()).unwrap();
            let back = lift(&json, &ty);
            prop_assert!(back.is_ok(), "{back:?} from {json}");
            // By debug text, since NaN is not equal to itself.
            prop_assert_eq!(format!("{:?}", back.ok()), format!("{:?}", Some(val)));
        }
    }

    #[test]
    fn no_json_makes_it_panic(text in r#"[\[\]{}":,a-z0-9.\-]{0,40}"#) {
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            let _ = lift(&json, &one(r#"(param "v" $all)"#));
        }
    }
}

#[test]
fn the_mapping_is_as_written() {
    let cases = [
        (r#"(param "v" $p)"#, json!({"x": -1, "y-axis": 2})),
        (r#"(param "v" (option string))"#, json!(null)),
        (r#"(param "v" $color)"#, json!("dark-blue")),
        (r#"(param "v" $rights)"#, json!(["read", "run-as-root"])),
        (r#"(param "v" $shape)"#, json!("empty")),
        (r#"(param "v" $shape)"#, json!({"circle": 1.5})),
        (r#"(param "v" (tuple u32 string))"#, json!([7, "x"])),
        (r#"(param "v" (list u8))"#, json!("AAH/")),
        (r#"(param "v" u64)"#, json!("18446744073709551615")),
        (r#"(param "v" s64)"#, json!("-9223372036854775808")),
        (r#"(param "v" f64)"#, json!("-Infinity")),
        (r#"(param "v" f32)"#, json!(0.1)),
        (r#"(param "v" char)"#, json!("ü")),
        (r#"(param "v" (result u32 (error string)))"#, json!({"err": "no"})),
        (r#"(param "v" (result))"#, json!("ok")),
    ];
    for (params, json) in cases {
        let ty = one(params);
        let val = lift(&json, &ty).unwrap_or_else(|e| panic!("{params} {json}: {e}"));
        assert_eq!(lower(&val, &ty, 1_000).as_deref(), Ok(json.to_string().as_str()), "{params}");
    }
    for (params, given, written) in [
        (r#"(param "v" u64)"#, json!(9_007_199_254_740_991_u64), r#""9007199254740991""#),
        (r#"(param "v" f64)"#, json!(3), "3.0"),
        (r#"(param "v" (option $p))"#, json!({"x": 1, "y-axis": 2}), r#"{"x":1,"y-axis":2}"#),
    ] {
        let ty = one(params);
        assert_eq!(lift(&given, &ty).map(|v| lower(&v, &ty, 1_000)), Ok(Ok(written.to_owned())), "{params}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_path() {
    let cases = [
        (r#"(param "v" u8)"#, json!(256), "/"),
        (r#"(param "v" u8)"#, json!(1.5), "/"),
        (r#"(param "v" u8)"#, json!("1"), "/"),
        (r#"(param "v" u64)"#, json!(9_007_199_254_740_992_u64), "/"),
        (r#"(param "v" u64)"#, json!("-1"), "/"),
        (r#"(param "v" char)"#, json!("ab"), "/"),
        (r#"(param "v" bool)"#, json!(null), "/"),
        (r#"(param "v" f64)"#, json!("nan"), "/"),
        (r#"(param "v" $p)"#, json!({"x": 1}), "/y-axis"),
        (r#"(param "v" $p)"#, json!({"x": 1, "y-axis": 2, "z/~": 3}), "/z~1~0"),
        (r#"(param "v" $color)"#, json!("blue"), "/"),
        (r#"(param "v" $rights)"#, json!(["read", "read"]), "/1"),
        (r#"(param "v" $rights)"#, json!(["fly"]), "/0"),
        (r#"(param "v" $shape)"#, json!("circle"), "/"),
        (r#"(param "v" $shape)"#, json!({"empty": null}), "/"),
        (r#"(param "v" $shape)"#, json!({"circle": 1, "empty": 1}), "/"),
        (r#"(param "v" $shape)"#, json!({"points": [{"x": 1, "y-axis": 1}, {"x": true, "y-axis": 1}]}), "/points/1/x"),
        (r#"(param "v" (tuple u32 string))"#, json!([1]), "/"),
        (r#"(param "v" (list u8))"#, json!("AAH"), "/"),
        (r#"(param "v" (list u8))"#, json!([1, 2]), "/"),
        (r#"(param "v" (list (option u32)))"#, json!([1, null, "x"]), "/2"),
    ];
    for (params, json, path) in cases {
        match lift(&json, &one(params)) {
            Err(misfit) => assert_eq!(misfit.path.to_string(), path, "{params} {json}: {misfit}"),
            Ok(val) => panic!("{params} took {json} as {val:?}"),
        }
    }
}

#[test]
fn arguments_are_named_and_none_is_over() {
    let params = types(r#"(param "first-name" string) (param "times" (option u32))"#);
    let args = |json: Value| json.as_object().cloned().unwrap_or_default();
    let good = lift_args(&params, &args(json!({"first_name": "a"})));
    assert_eq!(good, Ok(vec![Val::String("a".into()), Val::Option(None)]));
    for (json, path) in [
        (json!({"first_name": "a", "first-name": "b"}), "/first-name"),
        (json!({"times": 1}), "/first_name"),
        (json!({"first_name": "a", "times": -1}), "/times"),
    ] {
        assert_eq!(lift_args(&params, &args(json)).map_err(|e| e.path.to_string()), Err(path.to_owned()));
    }
}

#[test]
fn results_end_at_the_limit() {
    let ty = one(r#"(param "v" (list string))"#);
    let val = Val::List(vec![Val::String("x".repeat(50)); 10]);
    let whole = lower(&val, &ty, 10_000).map(|text| text.len()).unwrap_or_default();
    assert_eq!(lower(&val, &ty, whole).map(|text| text.len()), Ok(whole));
    assert_eq!(lower(&val, &ty, whole - 1), Err(LowerError::TooLarge { limit: whole - 1 }));
}

#[test]
fn types_without_json_are_refused() {
    assert!(supported(&one(r#"(param "v" $all)"#)).is_ok());
    for (params, path) in [
        (r#"(param "v" (option (option u32)))"#, "/"),
        (r#"(param "v" (list (own $handle)))"#, "/*"),
        (r#"(param "v" (tuple u8 (borrow $handle)))"#, "/1"),
    ] {
        assert_eq!(supported(&one(params)).map_err(|e| e.path.to_string()), Err(path.to_owned()));
    }
}
