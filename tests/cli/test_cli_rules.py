"""--rule, --keep, recipes, roles: who decides about a tensor."""
import os
import shutil
import unittest

from cli_support import CONFIGS, CliTest, LINEAR, TINY, random_weights, write_bytes, write_model


class Rules(CliTest):
    def setUp(self):
        super().setUp()
        self.small()
        self.base = ["--in", "small.safetensors"]

    def chosen(self, *args):
        return self.formats_of(*self.base, *args)

    def quantised(self, *args):
        return {n: f for n, f in self.chosen(*args).items() if f != "keep"}

    def test_defaults_quantise_linear_layers_only(self):
        self.assertEqual(self.quantised("--format", "int4"), {n: "int4" for n in LINEAR})

    def test_exact_glob_regex_and_role(self):
        q = {n: "int8" for n in LINEAR if "q_proj" in n}
        for pattern in ("*.q_proj.*", "role:q", r"re:.*\.q_proj\.weight", "model.layers.?.self_attn.q_proj.weight", "model.layers.[01].*.q_proj.weight"):
            with self.subTest(pattern):
                self.assertEqual(self.quantised("--rule", f"{pattern}=int8"), q)
        self.assertEqual(self.quantised("--rule", "model.layers.0.self_attn.q_proj.weight=int8"), {"model.layers.0.self_attn.q_proj.weight": "int8"})

    def test_first_match_wins_in_the_order_given(self):
        down0 = "model.layers.0.mlp.down_proj.weight"
        self.assertEqual(self.chosen("--format", "int4", "--rule", "*.layers.0.*=int8", "--rule", "role:down=mxfp4")[down0], "int8")
        self.assertEqual(self.chosen("--format", "int4", "--rule", "role:down=mxfp4", "--rule", "*.layers.0.*=int8")[down0], "mxfp4")
        self.assertEqual(self.chosen("--format", "int4", "--keep", "*.layers.0.*", "--rule", "role:down=mxfp4")[down0], "keep")
        self.assertEqual(self.chosen("--format", "int4", "--rule", "role:down=mxfp4", "--keep", "*.layers.0.*")[down0], "mxfp4")
        self.assertEqual(self.chosen("--format", "int4", "--rule", "role:down=keep", "--rule", "*.layers.0.*=int8")[down0], "keep")

    def test_command_line_before_recipe_before_defaults(self):
        write_bytes(self.path("r.yaml"), b"format: int8\ngroup-size: 64\nrules:\n  - {match: 'role:down', format: mxfp4}\n  - {match: 'role:up', keep: true}\n")
        plan = self.entries(self.ok_json("plan", *self.base, "--recipe", "r.yaml", "--rule", "*.layers.0.mlp.down_proj.weight=mxfp8_e5m2"))
        down0, down1, up0, q0 = (plan[f"model.layers.{n}.weight"] for n in ("0.mlp.down_proj", "1.mlp.down_proj", "0.mlp.up_proj", "0.self_attn.q_proj"))
        self.assertEqual([t["format"] for t in (down0, down1, up0, q0)], ["mxfp8_e5m2", "mxfp4", "keep", "int8"])
        self.assertEqual([t["decided_by"] for t in (down0, down1, up0, q0)], ["--rule", "r.yaml:4", "r.yaml:5", "default"])
        self.assertEqual((down0["rule"], down1["rule"], q0["rule"]), ("*.layers.0.mlp.down_proj.weight", "role:down", None))
        self.assertEqual(q0["group"], 64)
        plan = self.entries(self.ok_json("plan", *self.base, "--recipe", "r.yaml", "--format", "int4", "--group-size", "16"))
        self.assertEqual((plan[LINEAR[0]]["format"], plan[LINEAR[0]]["group"]), ("int4", 16))

    def test_settings_of_a_recipe_count_for_rules_of_the_command_line(self):
        write_bytes(self.path("r.yaml"), b"group-size: 16\nscale-dtype: f32\n")
        entry = self.entries(self.ok_json("plan", *self.base, "--recipe", "r.yaml", "--rule", "role:q=int4"))[LINEAR[0]]
        self.assertEqual((entry["group"], entry["scale"]), (16, "f32"))

    def test_rule_that_matches_nothing(self):
        self.refused(2, ["plan", *self.base, "--format", "int4", "--rule", "*.nothing.*=int8"], "--rule", "*.nothing.*", "selects no tensor")
        self.refused(2, ["convert", *self.base, "--format", "int4", "--keep", "*.nothing.*"], "--keep", "*.nothing.*")
        self.refused(2, ["convert", *self.base, "--format", "int4", "--rule", "role:router=int8"], "role:router")
        self.refused(2, ["convert", *self.base, "--format", "int4", "--rule", "model.layers.9.x=int8"], "model.layers.9.x")
        for optional, code in (("true", 0), ("false", 2)):
            write_bytes(self.path("r.yaml"), f"format: int4\nrules:\n  - {{match: '*.nothing.*', format: int8, optional: {optional}}}\n".encode())
            result = self.llmq("plan", *self.base, "--recipe", "r.yaml")
            self.assertEqual(result.code, code, str(result))
            if code:
                self.check_refusal(result, code, "plan", "r.yaml:3", "*.nothing.*")

    def test_rule_behind_another_is_not_called_unmatched(self):
        self.ok("plan", *self.base, "--format", "int4", "--rule", "*.down_proj.*=int8", "--rule", "*.layers.0.mlp.down_proj.*=int6")

    def test_a_pattern_never_selects_1d_but_an_exact_name_does(self):
        self.refused(2, ["plan", *self.base, "--format", "int4", "--rule", "*norm*=int8"], "*norm*", "never selects 1-D")
        self.refused(2, ["plan", *self.base, "--format", "int4", "--rule", "role:norm=int8"], "role:norm")
        self.refused(2, ["plan", *self.base, "--format", "int4", "--rule", "re:.*bias=int8"], "re:.*bias")
        self.refused(2, ["plan", *self.base, "--format", "int4", "--keep", "*norm*"], "*norm*", "never selects 1-D")
        self.assertEqual(self.chosen("--format", "int4", "--keep", "model.norm.weight")["model.norm.weight"], "keep")
        chosen = self.chosen("--format", "int4", "--rule", "model.norm.weight=int8")
        self.assertEqual((chosen["model.norm.weight"], chosen["model.layers.0.input_layernorm.weight"]), ("int8", "keep"))
        chosen = self.chosen("--format", "int4", "--rule", "*=int8")
        self.assertEqual({n for n, f in chosen.items() if f == "int8"}, set(LINEAR) | {"model.embed_tokens.weight", "lm_head.weight"})

    def test_embedding_and_head_on_request(self):
        self.assertEqual(set(self.quantised("--rule", "role:embedding=int8", "--rule", "role:head=int6").values()), {"int8", "int6"})

    def test_integer_tensor_named_exactly(self):
        self.refused(2, ["plan", *self.base, "--format", "int4", "--rule", "model.position_ids=int8"], "model.position_ids", "I64")
        self.assertEqual(self.chosen("--format", "int4", "--keep", "model.position_ids")["model.position_ids"], "keep")

    def test_bad_patterns_and_roles(self):
        self.refused(2, ["plan", *self.base, "--rule", "role:dwon=int8"], "dwon")
        for pattern in ("re:(", "re:[", "re:", "[a"):
            with self.subTest(pattern):
                result = self.llmq("plan", *self.base, "--format", "int4", "--rule", f"{pattern}=int8")
                self.assertIn(result.code, (1, 2))
                self.check_refusal(result, result.code, "plan", "--rule")
        self.refused(2, ["plan", *self.base, "--rule", "role:q=int9"], "unknown format 'int9'")

    def test_nothing_to_quantise(self):
        self.refused(2, ["convert", *self.base, "--format", "int4", "--keep", "*"], "small.safetensors", "no tensor would be quantised")
        write_model(self.path("n.safetensors"), {"model.norm.weight": ("F32", (4,), random_weights(0, 4))})
        self.refused(2, ["convert", "--in", "n.safetensors", "--format", "int4"], "n.safetensors", "no tensor would be quantised")

    def test_inline_parameters(self):
        for text, expected in (("int4:group=64,scale=f16", (64, "f16", "absmax", "nearest-even")), ("uint3:group=channel,scale=f32,rule=mse,rounding=away", ("channel", "f32", "mse", "away")),
                               ("int8:group=tensor", ("tensor", "bf16", "absmax", "nearest-even")), ("mxfp4:group=16,rule=rceil,rounding=truncate", (16, "e8m0", "rceil", "truncate"))):
            for args in (["--format", text], ["--rule", f"*.layers.*={text}"]):
                entry = self.entries(self.ok_json("plan", *self.base, *args))[LINEAR[0]]
                self.assertEqual((entry["group"], entry["scale"], entry["scale_rule"], entry["rounding"]), expected)
        plan = self.entries(self.ok_json("plan", *self.base, "--format", "int4:group=64", "--group-size", "16", "--scale-rule", "mse"))
        self.assertEqual((plan[LINEAR[0]]["group"], plan[LINEAR[0]]["scale_rule"]), (64, "mse"))
        for text, needle in (("int4:group=0", "group size '0'"), ("int4:group=32769", "32769"), ("int4:group=1x", "1x"), ("int4:scale=e8m0", "e8m0"), ("int4:rule=floor", "floor"), ("int4:", "key=value"),
                             ("int4:x=1", "'x'"), ("mxfp4:group=channel", "channel"), ("mxfp4:scale=bf16", "bf16"), ("int4:group", "key=value"), ("int4:rounding=up2", "up2"),
                             ("int4:" + "g" * 300, "too long")):
            with self.subTest(text[:30]):
                self.refused(2, ["plan", *self.base, "--format", text], needle)

    def test_global_parameters(self):
        for args, needle in ((["--format", "mxfp4", "--scale-dtype", "f16"], "f16"), (["--format", "mxfp4", "--scale-rule", "absmax"], "absmax"), (["--format", "int4", "--scale-rule", "search"], "search"),
                             (["--format", "mxfp4", "--group-size", "tensor"], "tensor"), (["--rule", "role:q=int4", "--group-size", "banana"], "banana"),
                             (["--rule", "role:q=int4", "--scale-rule", "best"], "best"), (["--rule", "role:q=int4", "--scale-dtype", "f64"], "f64")):
            with self.subTest(" ".join(args)):
                self.refused(2, ["plan", *self.base, *args], needle)
        plan = self.entries(self.ok_json("plan", *self.base, "--format", "mxfp4", "--scale-rule", "even", "--rule", "role:q=int4"))
        self.assertEqual(plan[LINEAR[0]]["scale_rule"], "absmax")


class Recipes(CliTest):
    def setUp(self):
        super().setUp()
        self.small()
        self.base = ["plan", "--in", "small.safetensors"]

    def recipe(self, text, name="r.yaml"):
        return write_bytes(self.path(name), text if isinstance(text, bytes) else text.encode())

    def bad(self, text, *needles, code=1):
        self.recipe(text)
        sentence = self.refused(code, [*self.base, "--recipe", "r.yaml"], *needles)
        return sentence

    def test_all_settings_of_a_recipe(self):
        self.recipe("description: everything\nformat: int4\ngroup-size: 16\nscale-rule: mse\nscale-dtype: f16\nrounding: away\nnonfinite: zero\ncompress: none\nsplit-max-size: 0\nalign: 64\n"
                    "measure: off\nthreads: 3\nmax-ram: 64M\nrules: []\n")
        plan = self.ok_json(*self.base, "--recipe", "r.yaml")
        entry = self.entries(plan)[LINEAR[0]]
        self.assertEqual([entry[k] for k in ("format", "group", "scale_rule", "scale", "rounding")], ["int4", 16, "mse", "f16", "away"])
        self.assertEqual((plan["threads_asked"], plan["file_nbytes_exact"]), (3, True))
        self.assertEqual(self.ok_json(*self.base, "--recipe", "r.yaml", "--threads", "5")["threads_asked"], 5)

    def test_unknown_keys_and_settings_that_are_none_of_a_recipe(self):
        for key in ("formt", "in", "out", "rule", "keep", "recipe", "force", "json", "quiet", "progress", "Format", "group_size", "''"):
            with self.subTest(key):
                self.bad(f"format: int4\n{key}: 1\n", "r.yaml:2", key.strip("'"))
        self.bad("format: int4\nrules:\n  - {match: 'role:q', fromat: int8}\n", "r.yaml:3", "fromat")

    def test_wrong_values_and_types(self):
        for text, line, needle in (("format: int9\n", None, "int9"), ("format: [int4]\n", 1, "format"), ("format: {a: b}\n", 1, "format"), ("format: int4\nthreads: many\n", 2, "many"),
                                   ("format: int4\nmax-ram: 1M\n", 2, "1M"), ("format: int4\nrounding: sideways\n", 2, "sideways"), ("format: int4\nalign: 3000\n", 2, "3000"),
                                   ("format: ''\n", 1, "format"), ("format:\n", 1, "format"), ("format: int4\nrules: 3\n", 2, "rules"), ("format: int4\nrules: {match: a}\n", 2, "rules"),
                                   ("format: int4\nrules: [3]\n", 2, ""), ("format: int4\nrules:\n- {format: int8}\n", 3, "match"), ("format: int4\nrules:\n- {match: 'role:q'}\n", 3, "format"),
                                   ("format: int4\nrules:\n- {match: 'role:q', format: int8, keep: true}\n", 3, "keep"), ("format: int4\nrules:\n- {match: 'role:q', keep: maybe}\n", 3, "keep"),
                                   ("format: int4\nrules:\n- {match: 'role:q', format: int8, optional: 1}\n", 3, "optional"), ("format: int4\nrules:\n- {match: 'role:x', format: int8}\n", 3, "'x'"),
                                   ("format: int4\nrules:\n- {match: [a], format: int8}\n", 3, "match"), ("format: int4\nrules:\n- {match: 're:(', format: int8}\n", 3, ""),
                                   ("format: int4\nrules:\n- {match: 'role:q', format: int8, group-size: 0}\n", 3, "'0'"),
                                   ("format: int4\nrules:\n- {match: 'role:q', format: mxfp4, scale-rule: absmax}\n", 3, "absmax"),
                                   ("format: int4\nrules:\n- {match: 'role:q', format: int8, scale-dtype: e8m0}\n", 3, "e8m0"),
                                   ("- a\n- b\n", 1, ""), ("just text\n", 1, ""), ("format: int4\nrules:\n- {match: 'role:q', keep: false}\n", 3, "format")):
            with self.subTest(text):
                self.recipe(text)
                result = self.llmq(*self.base, "--recipe", "r.yaml")
                self.assertIn(result.code, (1, 2), str(result))
                self.check_refusal(result, result.code, "plan", needle, *([f"r.yaml:{line}"] if line else []))

    def test_yaml_attacks(self):
        for text, needle in (("a: &x 1\n", "anchor"), ("a: *x\n", ""), ("format: !!str int4\n", "tag"), ("format: int4\nformat: int8\n", "already"), ("format: int4\n---\nformat: int8\n", "document"),
                             ("format: \"int4\\0\"\n", "NUL"), ("<<: {format: int4}\n", "merge"), ("[" * 80000, "16 deep"), ("{a: " * 80000, "16 deep"), ("%YAML 1.1\n---\nformat: int4\n", "%"),
                             ("format: \"int4\n", ""), ("a: b: c\n", ""), ("\tformat: int4\n", ""), (b"format: \xff\xfe\n", ""), (b"\xff\xfef\0o\0", ""), ("x" * (1 << 20) + ": 1\n", ""),
                             ("- " * 70000 + "a", ""), ("".join(f"k{i}: &a{i} 1\n" for i in range(5000)), "anchor"), ("rules: [" + "{}," * 200000 + "]\n", ""), ("? [a]\n: 1\n", "")):
            with self.subTest(text[:40]):
                self.bad(text, "r.yaml", needle)

    def test_empty_recipe(self):
        self.recipe("")
        self.refused(2, [*self.base, "--recipe", "r.yaml"], "give --format")
        self.ok(*self.base, "--recipe", "r.yaml", "--format", "int4")
        self.recipe("# nothing\n")
        self.ok(*self.base, "--recipe", "r.yaml", "--format", "int4")

    def test_recipe_that_is_no_file(self):
        self.refused(1, [*self.base, "--recipe", "./none.yaml"], "none.yaml")
        self.refused(1, [*self.base, "--recipe", "no-such-recipe"], "recipes/no-such-recipe.yaml")
        os.mkdir(self.path("d"))
        self.refused(1, [*self.base, "--recipe", "./d"], "d", "directory")
        os.mkfifo(self.path("f"))
        self.refused(1, [*self.base, "--recipe", "f"], "'f'")
        self.refused(1, [*self.base, "--recipe", "/dev/zero"], "/dev/zero")
        write_bytes(self.path("big.yaml"), b"a" * ((1 << 20) + 1))
        self.refused(1, [*self.base, "--recipe", "big.yaml"], "big.yaml", "limit")

    def test_recipes_that_ship(self):
        names = sorted(n[:-5] for n in os.listdir(os.path.join(CONFIGS, "recipes")) if n.endswith(".yaml"))
        linear = {"int4-down-int8", "mxfp4-first-last-mxfp8", "edge-mixed"}
        self.assertLessEqual(linear, set(names))
        for name in names:
            for given in (name, name + ".yaml", os.path.join(CONFIGS, "recipes", name + ".yaml")):
                with self.subTest(given):
                    report = self.ok_json("convert", "--in", TINY, "--recipe", given, "--out", "x.llmq", "--force")
                    self.assertEqual(report["tensors_quantised"], 21 if name in linear else 0 if name == "bf16" else 22)  # the source is BF16
            with open(os.path.join(CONFIGS, "recipes", name + ".yaml")) as f:
                text = f.read()
            self.assertIn("\ndescription: ", text)
            self.assertTrue(text.startswith("# "), name)
            self.ok("verify", "x.llmq")

    def test_what_the_shipped_recipes_choose(self):
        def chosen(*args):
            return {n: f for n, f in self.formats_of("--in", TINY, *args).items() if f != "keep"}
        mixed = chosen("--recipe", "int4-down-int8")
        self.assertEqual({f for n, f in mixed.items() if "down_proj" in n or "o_proj" in n}, {"int8"})
        self.assertEqual({f for n, f in mixed.items() if "down_proj" not in n and "o_proj" not in n}, {"int4"})
        ends = chosen("--recipe", "mxfp4-first-last-mxfp8", "--rule", "*.layers.2.*=mxfp8_e4m3")
        self.assertEqual({f for n, f in ends.items() if ".1." in n}, {"mxfp4"})
        self.assertEqual({f for n, f in ends.items() if ".1." not in n}, {"mxfp8_e4m3"})
        edge = chosen("--recipe", "edge-mixed")
        self.assertEqual({f for n, f in edge.items() if "mlp" in n and "down" not in n}, {"mxfp4"})
        self.assertEqual({f for n, f in edge.items() if "down" in n}, {"mxfp6_e2m3"})
        self.assertEqual({f for n, f in edge.items() if "self_attn" in n}, {"mxfp8_e4m3"})

    def test_a_file_of_that_name_goes_before_a_shipped_recipe(self):
        self.recipe("format: int2\n", name="edge-mixed")
        self.assertIn("int2", set(self.formats_of("--in", "small.safetensors", "--recipe", "edge-mixed").values()))


class Configuration(CliTest):
    """LLMQ_CONFIG and roles.yaml."""

    def test_llmq_config(self):
        self.small()
        base = ["plan", "--in", "small.safetensors", "--format", "int4", "--json"]
        shutil.copytree(CONFIGS, self.path("c"))
        self.ok(*base, env={"LLMQ_CONFIG": self.path("c")})
        with open(self.path("c", "roles.yaml"), "w") as f:
            f.write("roles:\n  - {role: mine, linear: true, match: ['*.q_proj.weight']}\n")
        report = self.ok(*base, env={"LLMQ_CONFIG": self.path("c")}).json
        self.assertEqual({t["name"] for t in report["tensors"] if t["format"] != "keep"}, {n for n in LINEAR if "q_proj" in n})
        self.assertEqual({t["role"] for t in report["tensors"]}, {"mine", "other"})
        for text, needle in (("roles: 3\n", "roles"), ("rolls: []\n", "rolls"), ("roles: [{role: a}]\n", "match"), ("roles: [{role: a, match: ['re:(']}]\n", ""), ("", "roles"),
                             ("roles: [{role: a, match: [b], linear: 3}]\n", "linear"), ("roles: [{role: [a], match: [b]}]\n", "role"), ("roles: [{role: a, match: b}]\n", "match")):
            with open(self.path("c", "roles.yaml"), "w") as f:
                f.write(text)
            with self.subTest(text):
                self.refused(1, base, "roles.yaml", needle, env={"LLMQ_CONFIG": self.path("c")})

    def test_llmq_config_without_the_file(self):
        self.small()
        base = ["plan", "--in", "small.safetensors", "--format", "int4"]
        os.mkdir(self.path("empty"))
        self.refused(1, base, "roles.yaml", "LLMQ_CONFIG", env={"LLMQ_CONFIG": self.path("empty")})
        self.refused(1, base, "nowhere", "LLMQ_CONFIG", env={"LLMQ_CONFIG": self.path("nowhere")})
        self.ok(*base, env={"LLMQ_CONFIG": ""})


if __name__ == "__main__":
    unittest.main()
