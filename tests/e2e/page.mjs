// Chromium, and the todo app's page as its users handle it.

import { chromium } from "playwright-core";
import { until } from "./harness.mjs";

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

/** A tab on a room; `problems` holds the errors that the page did not handle. */
export async function openPage(context, server, room) {
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  await page.goto(`${server.url}/#${room}`);
  return Object.assign(page, { problems });
}

export const phase = (page, name) => page.locator(`.pill[data-phase="${name}"]`).waitFor();
export const texts = (page) => page.locator(".todos .text").allTextContents();
export const item = (page, text) => page.locator(".todos li", { hasText: text });
export const shows = (page, wanted) =>
  until(`the window shows ${wanted}`, async () => (await texts(page)).join() === wanted.join());

export async function add(page, text) {
  await page.getByLabel("What needs to be done?").fill(text);
  await page.getByRole("button", { name: "Add" }).click();
}

export async function rename(page, from, to) {
  await page.getByRole("button", { name: from, exact: true }).click();
  await page.getByLabel("Text", { exact: true }).fill(to);
  await page.keyboard.press("Enter");
}
