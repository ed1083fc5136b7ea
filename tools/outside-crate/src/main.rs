//! Embeds two texts with the model of the directory given.

use komt_core::{EmbedOptions, Embedder, LoadOptions, Model, Pooling};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: outside-crate MODEL_DIR")?;
    let model = Model::load(dir, LoadOptions::default())?;
    let embedder = Embedder::new(&model, EmbedOptions::default().pooling(Pooling::Mean))?;
    let vectors = embedder.embed(&["제주도 여행", "a trip to Jeju"])?;
    let cosine: f32 = vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum();
    println!("2 vectors of {} dimensions on {}, cosine {cosine:.3}", vectors[0].len(), model.device_name());
    Ok(())
}
