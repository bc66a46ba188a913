// The labels of one image: changed at once here, saved in the background one state after the other, merged where
// somebody else saved the same image.

import { put } from "./api.js";

const key = (object) => `${object.name}\u0000${object.rle.counts}`;

export class Labels {
  // on: {changed(), saved(), merged(who), failed(error)}
  constructor(address, found, on) {
    Object.assign(this, { address, on, revision: found.revision, objects: found.objects, base: found.objects, error: null });
    this.saving = Promise.resolve();
    this.waiting = 0;
  }

  set(objects) {
    this.objects = objects;
    this.on.changed();
    this.waiting += 1;
    this.saving = this.saving.then(() => this.#save());
    return this.saving;
  }

  // An image without any object is labelled too, once it was saved.
  touch() {
    return this.set([...this.objects]);
  }

  async #save() {
    this.waiting -= 1;
    if (this.waiting) return; // a newer state follows
    const sent = this.objects;
    const objects = sent.map(({ id, name, rle }) => (id ? { id, name, rle } : { name, rle }));
    try {
      const saved = await put(this.address, { revision: this.revision, objects });
      this.error = null;
      this.#take(saved, sent);
    } catch (error) {
      if (error.code === "conflict") await this.#merge(error.body.saved);
      else {
        this.error = error;
        this.on.failed(error);
      }
    }
  }

  // The server's ids come to the objects that were sent; what changed meanwhile stays.
  #take(saved, sent) {
    const ids = new Map(sent.map((object, i) => [object, saved.objects[i].id]));
    this.revision = saved.revision;
    this.base = saved.objects;
    this.objects = this.objects.map((object) => (ids.has(object) ? Object.assign(object, { id: ids.get(object) }) : object));
    this.on.saved();
  }

  // Theirs, with what was added and changed here, without what was deleted here. Where both changed one object, both stay.
  async #merge(theirs) {
    const before = new Map(this.base.map((object) => [object.id, object]));
    const mine = new Map(this.objects.filter((object) => object.id).map((object) => [object.id, object]));
    const merged = [];
    const extra = this.objects.filter((object) => !object.id);
    for (const object of theirs.objects) {
      const old = before.get(object.id);
      const own = mine.get(object.id);
      if (!old) merged.push(object);
      else if (!own) key(object) === key(old) || merged.push(object);
      else if (key(object) === key(old)) merged.push(own);
      else {
        merged.push(object);
        if (key(own) !== key(old) && key(own) !== key(object)) extra.push({ ...own, id: undefined });
      }
    }
    const kept = new Set(theirs.objects.map((object) => object.id));
    for (const [id, own] of mine) if (!kept.has(id) && key(own) !== key(before.get(id))) extra.push({ ...own, id: undefined });
    this.revision = theirs.revision;
    this.base = theirs.objects;
    this.on.merged(theirs.by);
    await this.setNow([...merged, ...extra]);
  }

  setNow(objects) {
    this.objects = objects;
    this.on.changed();
    this.waiting += 1;
    return this.#save();
  }
}
