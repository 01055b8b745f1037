// Sign-up, sign-in, refresh and sign-out belong to one side (old) at every percentage; the access token it gives is honoured by
// the REST services of both.

import { createClient } from '@supabase/supabase-js';
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { rest } from '../lib/rest.mjs';
import { forget, requestsSeen } from '../lib/stack.mjs';
import { cutover, registered, stack } from '../lib/suite.mjs';

const proxy = await cutover();

for (const [percentage, where] of [[0, 'old'], [100, 'new']]) {
  test(`a session lives at ${percentage} %`, async () => {
    await proxy.setPercentage(percentage);
    await forget(stack.new);
    const client = createClient(proxy.url, stack.old.anonKey, { auth: { persistSession: false, autoRefreshToken: false } });
    const credentials = { email: `auth-${randomUUID()}@example.com`, password: 'correct horse battery staple' };

    const up = await client.auth.signUp(credentials);
    assert.equal(up.error, null);
    const { data: { session }, error } = await client.auth.signInWithPassword(credentials);
    assert.equal(error, null);
    assert.equal((await client.auth.getUser()).data.user.email, credentials.email);

    // The token is honoured through the proxy, by the side of the user, and by both projects directly.
    assert.deepEqual((await client.rpc('whoami')).data, { role: 'authenticated', user: session.user.id });
    assert.equal((await client.rpc('which_project')).data, where);
    for (const project of [stack.old, stack.new]) {
      const answer = await rest(project.url, '/rpc/whoami', { key: project.anonKey, token: session.access_token });
      assert.deepEqual(answer.json, { role: 'authenticated', user: session.user.id });
    }

    const refreshed = await client.auth.refreshSession();
    assert.equal(refreshed.error, null);
    assert.notEqual(refreshed.data.session.refresh_token, session.refresh_token);
    assert.equal((await client.rpc('whoami')).data.user, session.user.id);

    assert.equal((await client.auth.signOut()).error, null);
    const again = await client.auth.refreshSession({ refresh_token: refreshed.data.session.refresh_token });
    assert.ok(again.error, 'a refresh token still works after sign-out');

    const strayed = (await requestsSeen(stack.new)).filter((request) => request.url.startsWith('/auth/'));
    assert.deepEqual(strayed, []);
  });
}

test('a session begun at 0 % goes on at 100 % and back', async () => {
  await proxy.setPercentage(0);
  const client = createClient(proxy.url, stack.old.anonKey, { auth: { persistSession: false, autoRefreshToken: false } });
  const credentials = { email: `auth-${randomUUID()}@example.com`, password: 'correct horse battery staple' };
  await client.auth.signUp(credentials);
  for (const [percentage, where] of [[100, 'new'], [0, 'old']]) {
    await proxy.setPercentage(percentage);
    assert.equal((await client.rpc('which_project')).data, where);
    const { error } = await client.auth.refreshSession();
    assert.equal(error, null);
    assert.equal((await client.rpc('which_project')).data, where);
  }
});

registered(import.meta);
