// Users for the tests: those of sql/rows.sql, and as many others as wanted, told apart by the side they belong to.

import { createHash, randomUUID } from 'node:crypto';
import { bucket, side } from './bucket.mjs';
import { userToken } from './keys.mjs';

const asUuid = (hex) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export function user(id) {
  return { id, bucket: bucket(id), token: userToken(id) };
}

/** The 40 users who have rows on both projects. */
export const MEMBERS = Array.from({ length: 40 }, (_, index) => user(asUuid(createHash('md5').update(`user ${index + 1}`).digest('hex'))));

/** The first `count` members who are on the given side at the given percentage. */
export function membersOn(wanted, percentage, count = 2) {
  return MEMBERS.filter((member) => side(member.id, percentage) === wanted).slice(0, count);
}

export function newUsers(count) {
  return Array.from({ length: count }, () => user(randomUUID()));
}
