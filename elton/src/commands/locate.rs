//! `elton where`

use gateway::admin::shape::Where;

use crate::Failure;
use crate::cli::WhereArgs;
use crate::client::{Client, Path, Patience};
use crate::output::units::ByteSize;
use crate::output::{Align, Output, Table};

/// Says which clusters have the bodies of an object.
pub async fn run(arguments: &WhereArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let object = &arguments.object;
    let path = Path::new(&["where"]).with("bucket", &object.bucket).with("key", &object.key);
    let found: Where = client.get(&path, Patience::Ordinary).await?;
    Output::new(arguments.client.json).show(&found, human)?;
    Ok(())
}

fn human(found: &Where) -> String {
    let facts = Table::facts([
        ("version", found.number.to_string()),
        ("size", ByteSize(found.size).to_string()),
        ("numbered by", found.home.clone().unwrap_or_else(|| "this cluster".to_owned())),
    ]);
    let mut table =
        Table::new(&[("BODY", Align::Left), ("SIZE", Align::Right), ("HERE", Align::Left), ("ALSO AT", Align::Left)]);
    for body in &found.bodies {
        table.row([
            body.hash.chars().take(16).collect(),
            ByteSize(body.length).to_string(),
            if body.here { "yes" } else { "no" }.to_owned(),
            body.holders.join(", "),
        ]);
    }
    if table.is_empty() { facts } else { format!("{facts}\n{}", table.render()) }
}
