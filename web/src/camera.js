// A photograph from the camera. Resolves to a Blob, or to null if the person changed their mind.

export async function takePhotograph(dialog) {
  const video = dialog.querySelector("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    throw new Error(denied ? "The camera was not allowed: allow it in the browser's settings for this page." : "No camera can be used here: open a photograph instead.");
  }
  video.srcObject = stream;
  dialog.showModal();
  try {
    return await new Promise((resolve) => {
      dialog.onclose = () => resolve(null);
      dialog.querySelector('[data-camera="close"]').onclick = () => dialog.close();
      dialog.querySelector('[data-camera="shoot"]').onclick = () => {
        if (!video.videoWidth) return; // no picture yet
        const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
        canvas.getContext("2d").drawImage(video, 0, 0);
        canvas.toBlob((blob) => {
          resolve(blob);
          dialog.close();
        }, "image/png");
      };
    });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}
