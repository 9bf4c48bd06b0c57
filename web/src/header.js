// The size a picture's header declares, read before the picture is decoded: on a phone, decoding a very large one ends the page.

const PNG = 0x89504e47;
const JPEG = 0xffd8;

const bytes = async (blob, start, count) => new DataView(await blob.slice(start, start + count).arrayBuffer());

/** Whether a JPEG marker starts a frame (SOF0 to SOF15 without the tables DHT, JPG and DAC). */
const startsFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);

/** [width, height] of a JPEG: its segments are skipped by their lengths until a frame starts. */
async function jpegSize(blob) {
  for (let at = 2; ; ) {
    const segment = await bytes(blob, at, 9);
    if (segment.byteLength < 9 || segment.getUint8(0) !== 0xff) return null;
    const marker = segment.getUint8(1);
    if (startsFrame(marker)) return [segment.getUint16(7), segment.getUint16(5)];
    at += marker === 0xff ? 1 : 2 + segment.getUint16(2);
  }
}

/** [width, height] that a JPEG or PNG declares (before any rotation by EXIF); null for other files. */
export async function declaredSize(blob) {
  const start = await bytes(blob, 0, 24);
  if (start.byteLength < 24) return null;
  if (start.getUint32(0) === PNG) return [start.getUint32(16), start.getUint32(20)];
  return start.getUint16(0) === JPEG ? jpegSize(blob) : null;
}
