//! Parameters and multiply–accumulates of the built-in networks, to the digit.
//!
//! MACs are those of convolutions and products, attention's included and not halved by causality; biases are not counted.

use hwsim::workload::{Graph, Options, resolve};

fn network(name: &str, options: &Options) -> Graph {
    resolve(name, options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn counts(name: &str, options: &Options) -> (u64, u64) {
    let graph = network(name, options);
    (graph.total_parameters().unwrap(), graph.total_macs().unwrap())
}

fn seq(tokens: u64) -> Options {
    Options { seq: Some(tokens), ..Options::default() }
}

fn decode(context: u64) -> Options {
    Options { context: Some(context), ..Options::default() }
}

#[test]
fn convolutional_networks() {
    let expected = [
        // Parameters and operations that torchvision publishes with its weights (`num_params`, `_ops`), with all digits.
        ("alexnet", 61_100_840, 714_188_480),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("vgg19", 143_667_240, 19_632_062_464),
        ("resnet18", 11_689_512, 1_814_073_344),
        ("resnet34", 21_797_672, 3_663_761_408),
        ("resnet101", 44_549_160, 7_801_405_440),
        ("resnet152", 60_192_808, 11_513_626_624),
        ("mobilenetv2", 3_504_872, 300_774_272),
        ("efficientnet-b0", 5_288_548, 385_814_752),
        ("densenet121", 7_978_856, 2_834_161_664),
        ("squeezenet1.1", 1_235_496, 349_151_936),
        // The ONNX model zoo's bvlc_alexnet without its shape constants.
        ("alexnet-caffe", 60_965_224, 654_560_384),
        ("resnet50", 25_557_032, 4_089_184_256),
        // 12·197·(12·768² + 2·197·768) + 196·768² + 768·1000
        ("vit-b-16", 86_567_656, 17_563_828_224),
    ];
    for (name, parameters, macs) in expected {
        assert_eq!(counts(name, &Options::default()), (parameters, macs), "{name}");
    }
}

#[test]
fn transformers_at_a_prompt() {
    let expected = [
        // 12 blocks of 12·768² weights; 2·12·T²·768 in attention; BERT's pooler 768²; GPT-2's head T·50257·768, tied.
        ("bert-base", 128, 109_482_240, 10_871_635_968 + 301_989_888 + 589_824),
        ("gpt2", 128, 124_439_808, 10_871_635_968 + 301_989_888 + 4_940_464_128),
        ("gpt2", 1024, 124_439_808, 86_973_087_744 + 19_327_352_832 + 39_523_713_024),
        // 24·512·(12·1024² + 2·512·1024), and the pooler.
        ("bert-large", 512, 335_141_888, 154_618_822_656 + 12_884_901_888 + 1_048_576),
        // 36·(12·1280² + 2·1024·1280)·T and the head.
        ("gpt2-large", 1024, 774_030_080, 724_775_731_200 + 96_636_764_160 + 65_872_855_040),
        ("opt-1.3b", 2048, 1_315_758_080, 2_473_901_162_496 + 412_316_860_416 + 210_856_050_688),
        // 32 blocks of 4·4096² + 3·4096·11008 weights; 2·32·T²·4096; T·32000·4096.
        ("llama-2-7b", 128, 6_738_415_616, 828_928_688_128 + 4_294_967_296 + 16_777_216_000),
        ("llama-2-7b", 1024, 6_738_415_616, 7_040_525_139_968),
        // 32 blocks of 2·4096·(4096 + 1024) + 3·4096·14336 weights; T·128256·4096.
        ("llama-3-8b", 128, 8_030_261_248, 893_353_197_568 + 4_294_967_296 + 67_243_081_728),
        ("llama-3-8b", 1024, 8_030_261_248, 7_959_648_141_312),
    ];
    for (name, tokens, parameters, macs) in expected {
        assert_eq!(counts(name, &seq(tokens)), (parameters, macs), "{name} at {tokens}");
    }
}

#[test]
fn decoding_attends_to_the_context_and_the_new_token() {
    // One token through every weight, and 2·32·1024·4096 in attention.
    assert_eq!(counts("llama-2-7b", &decode(1024)), (6_738_415_616, 6_607_077_376 + 268_435_456));
    assert_eq!(counts("llama-3-8b", &decode(1024)), (8_030_261_248, 7_504_658_432 + 268_435_456));
}

#[test]
fn parameters_of_published_checkpoints() {
    // As the checkpoints are known to have; not in the table of published counts that the other networks are held against.
    let expected = [
        ("llama-3-70b", 70_553_706_496),
        ("mistral-7b", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen2-7b", 7_615_616_512),
        ("gemma-7b", 8_537_680_896),
    ];
    for (name, parameters) in expected {
        assert_eq!(counts(name, &Options::default()).0, parameters, "{name}");
    }
}
