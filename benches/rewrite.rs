//! What the translation of a typical REST request costs, with a map of 10 and of 10,000 tables: the two should
//! not differ.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use cutover::rewrite::rest::{Asked, resolve, translate};
use cutover::rewrite::schema::{Entry, SchemaMap};
use cutover::rewrite::{CrossSchemaEmbeds, Settings, Unmapped, functions, storage};
use cutover::side::{Pair, Side};
use http::{HeaderMap, HeaderValue, Method};

const PLAIN: &str = "select=id,title,created_at&user_id=eq.7&order=created_at.desc&limit=20";
const EMBEDS: &str = "select=id,name,table_3(id,label,table_4!inner(*)),k:table_5(created_at)\
                      &table_3.order=label.asc&k.id=eq.4&order=created_at.desc&limit=20";

const EMBEDS_THERE: &str = "select=id,name,renamed_3(id,label,renamed_4!inner(*)),k:renamed_5(created_at)\
                            &renamed_3.order=label.asc&k.id=eq.4&order=created_at.desc&limit=20";

fn settings(tables: usize) -> Settings {
    let entries: Vec<Entry> = (0..tables)
        .map(|i| Entry {
            old: format!("table_{i}"),
            schema: format!("domain_{}", i / 10 % 11),
            name: Some(format!("renamed_{i}")),
            canonical: false,
        })
        .collect();
    Settings {
        map: SchemaMap::build("public", &entries, &[]).unwrap_or_default(),
        unmapped: Unmapped::Pass,
        compat: None,
        cross_schema_embeds: CrossSchemaEmbeds::Refuse,
        auth: Pair::default(),
        functions: functions::Settings::default(),
        storage: storage::Settings::default(),
    }
}

fn rewrite(c: &mut Criterion) {
    let mut group = c.benchmark_group("rewrite");
    let legacy = HeaderMap::new();
    let mut domain = HeaderMap::new();
    domain.insert("accept-profile", HeaderValue::from_static("domain_0"));
    for tables in [10, 10_000] {
        let settings = settings(tables);
        for (name, headers, tail, query, side) in [
            ("native", &legacy, "/table_1", EMBEDS, Side::Old),
            ("plain", &legacy, "/table_1", PLAIN, Side::New),
            ("embeds", &legacy, "/table_1", EMBEDS, Side::New),
            ("embeds_back", &domain, "/renamed_1", EMBEDS_THERE, Side::Old),
        ] {
            let asked = Asked { method: &Method::GET, tail, query: Some(query), headers };
            group.bench_with_input(BenchmarkId::new(name, tables), &settings, |b, settings| {
                b.iter(|| {
                    let resource = resolve(settings, black_box(&asked));
                    translate(settings, &resource, black_box(&asked), side)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, rewrite);
criterion_main!(benches);
