"""What transformers' configs of CLIP, SigLIP, ViT, DINO and ResNet can say."""

from typing import Any

from vprompt_jax.clip.checkpoints.keys import Keys, names

# Keys of every config: of training, of generation, and of how outputs are wrapped. The second half
# is of versions before 5, which wrote all of them.
_OUTSIDE = names(
    "transformers_version architectures output_hidden_states output_attentions return_dict dtype "
    "torch_dtype chunk_size_feed_forward id2label label2id problem_type num_labels model_type "
    "_name_or_path name_or_path _commit_hash _attn_implementation attn_implementation "
    "_attn_implementation_autoset _experts_implementation initializer_range initializer_factor "
    "torchscript use_bfloat16 tf_legacy_loss tie_word_embeddings use_return_dict use_cache "
    "gradient_checkpointing bos_token_id pad_token_id sep_token_id decoder_start_token_id "
    "finetuning_task task_specific_params tokenizer_class prefix max_length min_length do_sample "
    "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size "
    "bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id "
    "forced_eos_token_id remove_invalid_values renormalize_logits exponential_decay_length_penalty "
    "suppress_tokens begin_suppress_tokens auto_map attention_dropout hidden_dropout_prob "
    "attention_probs_dropout_prob dropout"
)
# Of other kinds of models; any other value would be another computation.
_NEVER: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
}
_SIZES = {"hidden_size": None, "intermediate_size": None, "num_hidden_layers": None}

CLIP = Keys(
    "config.json",
    read={"projection_dim": None},
    must={**_NEVER},
    harmless=_OUTSIDE
    | {"logit_scale_init_value", "text_config", "vision_config", "eos_token_id"}
    | {"text_config_dict", "vision_config_dict"},
)
CLIP_VISION = Keys(
    "config.json: vision_config",
    read={
        **_SIZES,
        "image_size": None,
        "patch_size": None,
        "projection_dim": None,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    must={**_NEVER, "num_channels": (3,)},
    harmless=_OUTSIDE | {"eos_token_id"},
)
CLIP_TEXT = Keys(
    "config.json: text_config",
    read={
        **_SIZES,
        "vocab_size": None,
        "max_position_embeddings": None,
        "num_attention_heads": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
    must={**_NEVER},
    harmless=_OUTSIDE | {"projection_dim"},
)
SIGLIP = Keys(
    "config.json",
    read={},
    must={**_NEVER},
    harmless=_OUTSIDE | {"text_config", "vision_config", "text_config_dict", "vision_config_dict"},
)
SIGLIP_VISION = Keys(
    "config.json: vision_config",
    read={
        **_SIZES,
        "image_size": None,
        "patch_size": None,
        "num_attention_heads": 12,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    must={**_NEVER, "num_channels": (3,)},
    # Whether there is a head, the weights tell.
    harmless=_OUTSIDE | {"eos_token_id", "vision_use_head"},
)
# The ids of special tokens that these configs state are not those of the tokenizer.
SIGLIP_TEXT = Keys(
    "config.json: text_config",
    read={
        **_SIZES,
        "vocab_size": None,
        "max_position_embeddings": None,
        "projection_size": None,
        "num_attention_heads": 12,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    must={**_NEVER},
    harmless=_OUTSIDE | {"eos_token_id"},
)
VIT = Keys(
    "config.json",
    read={
        **_SIZES,
        "image_size": None,
        "patch_size": None,
        "num_attention_heads": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    },
    must={**_NEVER, "num_channels": (3,), "qkv_bias": (True,)},
    # The pooler is a head of models without classifier, the stride of the one for masked images.
    harmless=_OUTSIDE | {"encoder_stride", "pooler_output_size", "pooler_act", "eos_token_id"},
)
# Of training, and of what some classes return beside the features.
_DINO_OUTSIDE = _OUTSIDE | names(
    "layerscale_value drop_path_rate apply_layernorm reshape_hidden_states use_mask_token "
    "out_features out_indices _out_features _out_indices stage_names eos_token_id "
    "pos_embed_shift pos_embed_jitter pos_embed_rescale"
)
DINOV2 = Keys(
    "config.json",
    read={
        "hidden_size": None,
        "num_hidden_layers": None,
        "mlp_ratio": 4,
        "image_size": None,
        "patch_size": None,
        "num_attention_heads": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": False,
        "num_register_tokens": None,
    },
    must={**_NEVER, "num_channels": (3,), "qkv_bias": (True,)},
    harmless=_DINO_OUTSIDE,
)
DINOV3 = Keys(
    "config.json",
    read={
        **_SIZES,
        "image_size": None,
        "patch_size": None,
        "num_attention_heads": 6,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
    must={**_NEVER, "num_channels": (3,), "proj_bias": (True,), "mlp_bias": (True,)},
    harmless=_DINO_OUTSIDE,
)
RESNET = Keys(
    "config.json",
    read={"embedding_size": None, "hidden_sizes": None, "depths": None},
    must={
        **_NEVER,
        "num_channels": (3,),
        "layer_type": ("bottleneck",),
        "hidden_act": ("relu",),
        "downsample_in_first_stage": (False,),
        "downsample_in_bottleneck": (False,),
    },
    harmless=_OUTSIDE | {"out_features", "out_indices", "stage_names", "eos_token_id"},
)
