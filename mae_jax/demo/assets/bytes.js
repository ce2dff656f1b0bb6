/* Arrays of bytes as base64, in which JSON holds pixels. */

/* The bytes of a text in base64. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/* Text in base64 of bytes. */
export function toBase64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768)
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  return btoa(text);
}
