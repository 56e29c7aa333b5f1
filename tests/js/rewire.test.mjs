import assert from "node:assert/strict";
import { describe as suite, test } from "node:test";

import { rewire } from "../../js/lib/rewire.mjs";
import { describe } from "../../js/lib/rewire_words.mjs";
import { define, fault, from, given, graph, make, template } from "./graphs.mjs";

function run(workflow, selected = null) {
  const before = JSON.stringify(workflow);
  const result = rewire(workflow, { define, make, selected });
  assert.equal(JSON.stringify(workflow), before, "the workflow that was given is another's");
  assert.equal(fault(result.workflow), null);
  return result;
}

const node = (workflow, id) => workflow.nodes.find((one) => one.id === id);
const types = (workflow) => Object.fromEntries(workflow.nodes.map((one) => [one.id, one.type]));
const named = (workflow, id) => node(workflow, id).widgets_values_named;
const kinds = (entries) => entries.map((entry) => [entry.type, ...entry.notes.map((note) => note[0])]);
const reason = (report, type) => report.left.find((entry) => entry.type === type)?.notes[0];
/** What an input is connected to: [type, id, slot]. */
function source(workflow, id, name) {
  const { link } = node(workflow, id).inputs.find((slot) => slot.name === name);
  const found = workflow.links.map((l) => (Array.isArray(l) ? l : [l.id, l.origin_id, l.origin_slot])).find((l) => l[0] === link);
  return found && [node(workflow, found[1])?.type ?? "the subgraph's", found[1], found[2]];
}
/** A subgraph and the node that uses it. */
function used(nodes, options, values, more = {}) {
  const inner = graph(nodes, { id: "uuid", name: "Text to Image", ...options });
  return graph({ 20: ["uuid", values], 21: ["SaveImage", { images: from(20) }], ...more }, { uses: [inner] });
}
const inside = (workflow, index = 0) => workflow.definitions.subgraphs[index];

suite("the template's graph", () => {
  const { workflow, report } = run(graph(template()));

  test("every node that ours can take the place of is ours, with the same id", () => {
    assert.deepEqual(types(workflow), {
      1: "ZImageTransformerLoader", 2: "ZImageTextEncoderLoader", 3: "ZImageVAELoader", 5: "CLIPTextEncode",
      7: "ZImageLatentSize", 8: "ZImageSampler", 9: "VAEDecode", 10: "SaveImage",
    }); // prettier-ignore
  });

  test("settings are carried over", () => {
    assert.equal(named(workflow, 1).file, "z_image_turbo_bf16.safetensors");
    const { seed, control_after_generate, mode, solver, strength, shift, ...rest } = named(workflow, 8);
    assert.deepEqual([seed, control_after_generate, mode, solver], [7, "randomize", "Turbo", "res_multistep"]);
    assert.deepEqual([rest["mode.steps"], rest["mode.cfg"], strength, shift], [8, 1, 1, 0]);
    assert.deepEqual([named(workflow, 7).size, named(workflow, 7)["size.aspect"]], ["1024 px", "1:1 - 1024x1024"]);
  });

  test("links are as they were; the shift and the negative that says nothing are gone", () => {
    assert.deepEqual(source(workflow, 8, "model"), ["ZImageTransformerLoader", 1, 0]);
    assert.deepEqual(source(workflow, 8, "latent"), ["ZImageLatentSize", 7, 0]);
    assert.equal(source(workflow, 8, "negative"), undefined);
    assert.deepEqual(source(workflow, 9, "vae"), ["ZImageVAELoader", 3, 0]);
    assert.deepEqual(kinds(report.removed), [["ModelSamplingAuraFlow", "shiftOwn"], ["ConditioningZeroOut", "noNegative"]]);
    assert.deepEqual(report.left, []);
  });

  test("once more, there is nothing to change", () => {
    const again = run(workflow);
    assert.deepEqual(again.report, { swapped: [], removed: [], left: [], lost: [] });
    assert.deepEqual(again.workflow, workflow);
  });
});

test("place, title, colour, mode and the address of the file stay with the node", () => {
  const models = [{ name: "z_image_turbo_bf16.safetensors", url: "https://example.org/z", directory: "diffusion_models" }];
  const nodes = template();
  nodes[1][2] = { title: "My model", color: "#232", mode: 4, size: [400, 300], properties: { cnr_id: "comfy-core", models } };
  const { workflow } = run(graph(nodes));
  const found = node(workflow, 1);
  assert.deepEqual([found.title, found.color, found.mode, found.size], ["My model", "#232", 4, [400, 300]]);
  assert.deepEqual(found.properties, {
    "Node name for S&R": "ZImageTransformerLoader", cnr_id: "zimage-nodes", ver: "0.1.0", models,
  }); // prettier-ignore
  assert.deepEqual(found.pos, [100, 50]);
});

suite("the sampler's settings", () => {
  const sampler = (settings, more) => {
    const { workflow, report } = run(graph(template({ sampler: settings, ...more })));
    return { ...named(workflow, 8), report, workflow };
  };

  test("above cfg 1 the mode is Base and the negative stays", () => {
    const { mode, workflow, ...rest } = sampler({ cfg: 4, steps: 25 });
    assert.deepEqual([mode, rest["mode.cfg"], rest["mode.steps"]], ["Base", 4, 25]);
    assert.deepEqual(source(workflow, 8, "negative"), ["ConditioningZeroOut", 6, 0]);
  });

  test("below cfg 1 the sampler stays, and with it the shift", () => {
    const { report, workflow } = sampler({ cfg: 0.5 });
    assert.deepEqual(reason(report, "KSampler"), ["lowCfg", 0.5]);
    assert.equal(types(workflow)[4], "ModelSamplingAuraFlow");
  });

  test("denoise becomes the strength that starts from the same noise", () => {
    assert.equal(sampler({ denoise: 0.33 }).strength, 0.596);
    assert.equal(sampler({ denoise: 0.5 }, { shift: { shift: 6 } }).strength, 0.857);
    assert.equal(sampler({ denoise: 0 }).strength, 0);
  });

  test("a shift that is not the template's becomes the sampler's", () => {
    const { shift, report } = sampler({}, { shift: { shift: 4.5 } });
    assert.equal(shift, 4.5);
    assert.deepEqual(report.removed[0].notes, [["shiftMoved", 4.5]]);
  });

  test("another schedule and a batch are listed as changes", () => {
    const { report } = sampler({ scheduler: "beta" }, { size: { batch_size: 4 } });
    const { notes } = report.swapped.find((entry) => entry.type === "KSampler");
    assert.deepEqual(notes, [["mode", "Turbo"], ["batch"], ["scheduler", "beta"]]);
  });

  test("links to widgets go to the widgets that ours has for them", () => {
    const nodes = template({ sampler: { seed: from(11), steps: from(12), cfg: from(13) } });
    Object.assign(nodes, { 11: ["PrimitiveNode", { value: 3 }], 12: ["PrimitiveInt", { value: 6 }], 13: ["PrimitiveFloat", { value: 4 }] });
    const made = graph(nodes);
    node(made, 11).outputs[0].widget = { name: "seed" };
    const { workflow } = run(made);
    assert.deepEqual(source(workflow, 8, "seed"), ["PrimitiveNode", 11, 0]);
    assert.deepEqual(source(workflow, 8, "mode.steps"), ["PrimitiveInt", 12, 0]);
    assert.deepEqual(source(workflow, 8, "mode.cfg"), ["PrimitiveFloat", 13, 0]);
    assert.equal(named(workflow, 8).mode, "Base");
  });

  test("a linked denoise or scheduler leaves the sampler alone", () => {
    for (const [widget, why] of [["denoise", ["denoiseLinked"]], ["scheduler", ["linked", "scheduler"]]]) {
      const nodes = { ...template({ sampler: { [widget]: from(11) } }), 11: ["PrimitiveFloat", { value: 0.5 }] };
      assert.deepEqual(reason(run(graph(nodes)).report, "KSampler"), why);
    }
  });

  test("KSamplerAdvanced is swapped where it runs all steps, and else stays", () => {
    const nodes = template();
    nodes[8][0] = "KSamplerAdvanced";
    nodes[8][1] = { ...nodes[8][1], noise_seed: 11, end_at_step: 8 };
    assert.equal(named(run(graph(nodes)).workflow, 8).seed, 11);
    nodes[8][1].end_at_step = 4;
    assert.deepEqual(reason(run(graph(nodes)).report, "KSamplerAdvanced"), ["partOfRun"]);
  });
});

suite("sizes", () => {
  const size = (settings, more) => run(graph({ ...template({ size: settings }), ...more }));

  test("an official size is its class and aspect, another is free", () => {
    const { workflow } = size({ width: 1280, height: 720 });
    assert.deepEqual([named(workflow, 7).size, named(workflow, 7)["size.aspect"]], ["1024 px", "16:9 - 1280x720"]);
    const free = named(size({ width: 1040, height: 720 }).workflow, 7);
    assert.deepEqual([free.size, free["size.width"], free["size.height"]], ["custom", 1040, 720]);
  });

  test("what ours cannot draw, and what another node works out, stays", () => {
    assert.deepEqual(reason(size({ width: 1000 }).report, "EmptySD3LatentImage"), ["size", "width", 1000, 16]);
    const { report } = size({ height: from(11, 1) }, { 11: ["GetImageSize"] });
    assert.deepEqual(reason(report, "EmptySD3LatentImage"), ["linked", "height"]);
  });
});

suite("files", () => {
  test("a form that does not load yet leaves its loader and the shift, and the rest is swapped", () => {
    const { workflow, report } = run(graph(template({ model: { unet_name: "z_image_turbo_int8_convrot.safetensors" } })));
    assert.deepEqual(reason(report, "UNETLoader"), ["notYet", "z_image_turbo_int8_convrot.safetensors"]);
    assert.deepEqual(reason(report, "ModelSamplingAuraFlow"), ["shiftStays"]);
    assert.deepEqual(source(workflow, 8, "model"), ["ModelSamplingAuraFlow", 4, 0]);
    assert.equal(types(workflow)[8], "ZImageSampler");
  });

  test("a GGUF is found in the folder that another pack keeps", () => {
    const nodes = template();
    nodes[1] = ["UnetLoaderGGUF", { unet_name: "z_image-Q4_K_M.gguf" }];
    assert.equal(named(run(graph(nodes)).workflow, 1).file, "z_image-Q4_K_M.gguf [unet_gguf]");
  });

  test("a file of any name is Z-Image's where its encoder is", () => {
    const { workflow } = run(graph(template({ model: { unet_name: "my_tune.safetensors", weight_dtype: "fp8_e4m3fn" } })));
    assert.deepEqual([types(workflow)[1], types(workflow)[8]], ["ZImageTransformerLoader", "ZImageSampler"]);
  });

  test("a cast and a device are said", () => {
    const cast = run(graph(template({ model: { weight_dtype: "fp8_e4m3fn" } })));
    assert.deepEqual(cast.report.swapped.find((entry) => entry.type === "UNETLoader").notes, [["weight_dtype", "fp8_e4m3fn"]]);
    const device = run(graph(template({ clip: { device: "cpu" } })));
    assert.deepEqual(reason(device.report, "CLIPLoader"), ["device", "cpu"]);
  });

  test("another encoder, another VAE and the small ones stay", () => {
    for (const name of ["sdxl_vae.safetensors", "taef1", "flux2-vae.safetensors", "ae.pt"]) {
      assert.ok(reason(run(graph(template({ vae: { vae_name: name } }))).report, "VAELoader"), name);
    }
    const gemma = run(graph(template({ clip: { clip_name: "gemma_2_2b.safetensors" }, model: { unet_name: "lumina_2.safetensors" } })));
    assert.deepEqual(gemma.report.swapped, []);
  });
});

suite("other models", () => {
  const flux = {
    31: ["UNETLoader", { unet_name: "flux1-dev.safetensors" }],
    32: ["CLIPLoader", { clip_name: "t5xxl.safetensors", type: "flux" }],
    33: ["VAELoader", { vae_name: "ae.safetensors" }],
    35: ["CLIPTextEncode", { clip: from(32) }],
    37: ["EmptySD3LatentImage"],
    38: ["KSampler", { model: from(31), positive: from(35), negative: from(35), latent_image: from(37) }],
    39: ["VAEDecode", { samples: from(38), vae: from(33) }],
  };

  test("are left as they are beside Z-Image", () => {
    const made = graph({ ...template(), ...flux });
    const { workflow, report } = run(made);
    for (const id of Object.keys(flux)) assert.deepEqual(node(workflow, Number(id)), node(made, Number(id)));
    assert.equal(types(workflow)[8], "ZImageSampler");
    assert.deepEqual(reason(report, "KSampler"), ["foreign"]);
  });

  test("alone are not touched at all", () => {
    const made = graph(flux);
    const { workflow, report } = run(made);
    assert.deepEqual(workflow, made);
    assert.deepEqual(report.swapped, []);
  });

  test("keep what they share with Z-Image", () => {
    const { workflow } = run(graph({ ...template(), ...flux, 39: ["VAEDecode", { samples: from(38), vae: from(3) }] }));
    assert.equal(types(workflow)[3], "VAELoader");
  });

  test("may draw the picture that Z-Image goes on from", () => {
    const nodes = { ...template(), ...flux };
    nodes[7] = ["VAEEncode", { pixels: from(39), vae: from(3) }];
    const { workflow } = run(graph(nodes));
    assert.deepEqual([types(workflow)[8], types(workflow)[3], types(workflow)[33]], ["ZImageSampler", "ZImageVAELoader", "VAELoader"]);
  });

  test("an all-in-one file of another model is not taken for Z-Image", () => {
    const nodes = template();
    nodes[1] = ["CheckpointLoaderSimple", { ckpt_name: "sdxl.safetensors" }];
    assert.deepEqual(reason(run(graph(nodes)).report, "KSampler"), ["foreign"]);
  });
});

suite("a part", () => {
  const only = (ids, more) => run(graph({ ...template(), ...more }), { graph: "", nodes: ids });

  test("the sampler alone takes ComfyUI's model, with its shift and its negative", () => {
    const { workflow, report } = only([8]);
    assert.deepEqual(report.swapped.map((entry) => entry.type), ["KSampler"]);
    assert.deepEqual(source(workflow, 8, "model"), ["ModelSamplingAuraFlow", 4, 0]);
    assert.deepEqual(source(workflow, 8, "negative"), ["ConditioningZeroOut", 6, 0]);
  });

  test("the loader alone leaves the rest", () => {
    const { workflow } = only([1]);
    assert.deepEqual(Object.values(types(workflow)).filter((type) => type.startsWith("ZImage")), ["ZImageTransformerLoader"]);
    assert.deepEqual(source(workflow, 4, "model"), ["ZImageTransformerLoader", 1, 0]);
  });

  test("part by part comes to the same as all at once", () => {
    const first = only([1]).workflow;
    const second = run(first).workflow;
    assert.deepEqual(types(second), types(run(graph(template())).workflow));
  });

  test("nodes between stay, and a shift that others use too", () => {
    const between = { 11: ["LoraLoaderModelOnly", { model: from(1), lora_name: "x" }] };
    const nodes = { ...template({ shift: { model: from(11) } }), ...between };
    assert.deepEqual(source(run(graph(nodes)).workflow, 8, "model"), ["LoraLoaderModelOnly", 11, 0]);
    const shared = run(graph({ ...template(), 11: ["BasicScheduler", { model: from(4) }] }));
    assert.deepEqual(reason(shared.report, "ModelSamplingAuraFlow"), ["shiftShared"]);
  });
});

suite("subgraphs", () => {
  const borders = { seed: "INT", steps: "INT", width: "INT", height: "INT", unet_name: "COMBO", text: "STRING" };
  const values = { seed: 5, steps: 9, width: 1280, height: 720, unet_name: "z_image_turbo_bf16.safetensors", text: "hi" };
  const changes = {
    model: { unet_name: given("unet_name") },
    size: { width: given("width"), height: given("height") },
    sampler: { seed: given("seed"), steps: given("steps") },
  };
  const options = { inputs: borders, outputs: { IMAGE: from(9) } };
  const nodes = (more = {}) => {
    const { 10: _save, ...all } = template({ ...changes, ...more });
    all[5][1].text = given("text");
    return all;
  };

  test("the widgets outside go on to set the widgets inside", () => {
    const { workflow, report } = run(used(nodes(), options, values));
    const inner = inside(workflow);
    assert.equal(types(inner)[8], "ZImageSampler");
    for (const [id, name, index] of [[8, "seed", 0], [8, "mode.steps", 1], [7, "size.width", 2], [1, "file", 4]]) {
      assert.deepEqual(source(inner, id, name), ["the subgraph's", -10, index], name);
    }
    assert.deepEqual(node(workflow, 20), node(used(nodes(), options, values), 20));
    assert.deepEqual(report.lost, []);
    assert.equal(report.swapped[0].graph, "Text to Image");
  });

  test("what is set outside decides: a file's form, sizes", () => {
    const int8 = { ...values, unet_name: "z_image_int8_convrot.safetensors" };
    assert.deepEqual(reason(run(used(nodes(), options, int8)).report, "UNETLoader"), ["notYet", int8.unet_name]);
    const odd = run(used(nodes(), options, { ...values, width: 1000 }));
    assert.deepEqual(reason(odd.report, "EmptySD3LatentImage"), ["size", "width", 1000, 16]);
    const worked = run(used(nodes(), options, { ...values, width: from(22) }, { 22: ["GetImageSize"] }));
    assert.deepEqual(reason(worked.report, "EmptySD3LatentImage"), ["linked", "width"]);
  });

  test("a denoise outside is converted in every use, and called strength", () => {
    const more = { inputs: { ...borders, denoise: "FLOAT" }, outputs: options.outputs };
    const inner = nodes({ sampler: { ...changes.sampler, denoise: given("denoise") } });
    const second = { 23: ["uuid", { ...values, denoise: 1 }] };
    const { workflow } = run(used(inner, more, { ...values, denoise: 0.33 }, second));
    assert.equal(node(workflow, 20).widgets_values.at(-1), 0.596);
    assert.equal(node(workflow, 23).widgets_values.at(-1), 1);
    assert.deepEqual(node(workflow, 20).inputs.at(-1).label, "strength");
    assert.deepEqual(source(inside(workflow), 8, "strength"), ["the subgraph's", -10, 6]);
  });

  test("a widget outside that ours has not goes, and the others stay", () => {
    const more = { inputs: { scheduler: "COMBO", ...borders }, outputs: options.outputs };
    const inner = nodes({ sampler: { ...changes.sampler, scheduler: given("scheduler") } });
    const { workflow, report } = run(used(inner, more, { ...values, scheduler: "beta", seed: from(22) }, { 22: ["PrimitiveInt"] }));
    assert.deepEqual(report.lost.map((entry) => entry.notes), [[["lostWidget", "scheduler"]]]);
    assert.deepEqual(inside(workflow).inputs.map((one) => one.name), Object.keys(borders));
    assert.deepEqual(node(workflow, 20).inputs.map((one) => one.name), Object.keys(borders));
    assert.deepEqual(node(workflow, 20).widgets_values.slice(1), Object.values(values).slice(1));
    assert.deepEqual(source(workflow, 20, "seed"), ["PrimitiveInt", 22, 0]);
    assert.deepEqual(source(inside(workflow), 8, "seed"), ["the subgraph's", -10, 0]);
  });

  test("a sampler inside is Z-Image's only if it is in every use", () => {
    const { 1: _loader, 4: _shift, 10: _save, ...inner } = template();
    inner[8][1].model = given("model");
    const outer = { 1: ["UNETLoader"], 2: ["UNETLoader", { unet_name: "flux1-dev.safetensors" }] };
    const more = { inputs: { model: "MODEL" }, outputs: options.outputs };
    const one = run(used(inner, more, { model: from(1) }, { 1: outer[1] }));
    assert.deepEqual([types(inside(one.workflow))[8], types(one.workflow)[1]], ["ZImageSampler", "ZImageTransformerLoader"]);
    inner[2][1] = { clip_name: "t5xxl.safetensors", type: "flux" };
    const both = run(used(inner, more, { model: from(1) }, { ...outer, 23: ["uuid", { model: from(2) }] }));
    assert.deepEqual(both.report.swapped, []);
  });

  test("a subgraph in a subgraph is reached, and its widgets through both", () => {
    const inner = graph(nodes(), { id: "inner", name: "Inner", ...options });
    const through = Object.fromEntries(Object.keys(borders).map((name) => [name, given(name)]));
    const middle = graph({ 30: ["inner", through] }, { id: "middle", name: "Middle", inputs: borders, outputs: { IMAGE: from(30) }, uses: [inner] });
    const outer = graph({ 20: ["middle", values], 21: ["SaveImage", { images: from(20) }] }, { uses: [inner, middle] });
    const { workflow, report } = run(outer);
    assert.equal(types(inside(workflow))[8], "ZImageSampler");
    assert.deepEqual(report.left, []);
    const int8 = run(graph({ 20: ["middle", { ...values, unet_name: "z_image_nvfp4.safetensors" }] }, { uses: [inner, middle] }));
    assert.deepEqual(reason(int8.report, "UNETLoader"), ["notYet", "z_image_nvfp4.safetensors"]);
  });

  test("choosing the node of a subgraph chooses what is in it", () => {
    const made = used(nodes(), options, values, template());
    const { workflow } = run(made, { graph: "", nodes: [20] });
    assert.deepEqual([types(inside(workflow))[8], types(workflow)[8]], ["ZImageSampler", "KSampler"]);
    const other = run(made, { graph: "uuid", nodes: [8] });
    assert.deepEqual([types(inside(other.workflow))[8], types(other.workflow)[8]], ["ZImageSampler", "KSampler"]);
    assert.deepEqual(types(inside(other.workflow))[1], "UNETLoader");
  });

  test("promotions as older browsers keep them, and an app's inputs, follow", () => {
    const made = used(nodes(), options, values);
    const listed = [["8", "steps"], ["8", "scheduler"], ["8", "control_after_generate"], ["5", "text"]];
    node(made, 20).properties.proxyWidgets = listed;
    made.extra = { linearData: { inputs: [[8, "steps"], ["root:20:seed", "seed"]], outputs: ["21"] } };
    const { workflow, report } = run(made);
    assert.deepEqual(node(workflow, 20).properties.proxyWidgets, [["8", "mode.steps"], listed[2], listed[3]]);
    assert.deepEqual(workflow.extra.linearData.inputs, [[8, "mode.steps"], ["root:20:seed", "seed"]]);
    assert.deepEqual(report.lost[0].notes, [["lostWidget", "scheduler"]]);
  });
});

test("waypoints of a link that is gone forget it", () => {
  const made = graph(template(), { extra: { reroutes: [{ id: 1, linkIds: [3, 1] }], linkExtensions: [{ id: 1, parentId: 1 }] } });
  const gone = made.links.find((link) => link[3] === 4)[0];
  made.extra.reroutes[0].linkIds = [gone, 99];
  made.extra.linkExtensions[0].id = gone;
  const { workflow } = run(made);
  assert.deepEqual(workflow.extra, { reroutes: [{ id: 1, linkIds: [99] }], linkExtensions: [] });
});

suite("words", () => {
  const { report } = run(graph(template({ model: { unet_name: "z_image_int8.safetensors" }, sampler: { denoise: 0.33 } })));
  const name = (type) => `<${type}>`;

  test("say what became of each node, in both languages", () => {
    for (const locale of ["en", "zh", "zh-TW"]) {
      const { text } = describe(report, locale, name);
      for (const entry of [...report.swapped, ...report.removed, ...report.left]) assert.ok(text.includes(name(entry.type)), text);
      assert.ok(text.includes("0.596") && text.includes("Ctrl+Z") && !text.includes("undefined"), text);
    }
    assert.notEqual(describe(report, "zh", name).text, describe(report, "en", name).text);
  });

  test("say when there is nothing", () => {
    const { text } = describe({ swapped: [], removed: [], left: [], lost: [] }, "en", name);
    assert.match(text, /^Nothing was changed/);
    assert.ok(!text.includes("Ctrl+Z"));
  });
});

suite("room", () => {
  const place = (pos, size) => ({ pos, size });
  const laid = () => {
    const nodes = template();
    nodes[8][2] = place([1000, 100], [270, 150]); // ours is 180 high
    nodes[9][2] = place([1020, 290], [200, 50]); // its title is 10 below
    nodes[3][2] = place([1050, 380], [200, 50]);
    nodes[5][2] = place([500, 280], [270, 50]); // in another column
    const made = graph(nodes);
    made.groups = [{ title: "Draw", bounding: [990, 60, 300, 300] }, { title: "Far", bounding: [0, 900, 100, 100] }];
    return made;
  };

  test("is made below a node that became higher, as far as it is needed, in its column and its group", () => {
    const { workflow } = run(laid());
    assert.deepEqual(node(workflow, 8).size, [270, 180]);
    assert.deepEqual(node(workflow, 8).pos, [1000, 100]);
    assert.deepEqual(node(workflow, 9).pos, [1020, 320]);
    assert.deepEqual(node(workflow, 3).pos, [1050, 410]);
    assert.deepEqual(node(workflow, 5).pos, [500, 280]);
    assert.deepEqual(workflow.groups.map((group) => group.bounding), [[990, 60, 300, 322], [0, 900, 100, 100]]);
  });

  test("is not made for a pinned node", () => {
    const made = laid();
    node(made, 9).flags.pinned = true;
    assert.deepEqual(node(run(made).workflow, 9).pos, [1020, 290]);
  });
});
