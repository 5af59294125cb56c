import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { TICK_STATES } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import type { ApiParts } from "./parts.js";
import { idOf, listQuery, noBody, scheduleId } from "./query.js";

const listed = z.strictObject(listQuery);
const runsListed = z.strictObject({ ...listQuery, state: z.enum(TICK_STATES).exactOptional() });

/** Schedules, and what became of their ticks. */
export function scheduleRoutes(api: FastifyInstance, { schedules }: Pick<ApiParts, "schedules">): void {
  api.post("/schedules", async (request, reply) => {
    const schedule = await schedules.create(request.body);
    return reply.code(201).header("location", `/api/v1/schedules/${schedule.id}`).send(schedule);
  });

  api.get("/schedules", (request) => schedules.list(parse(listed, request.query)));

  api.get("/schedules/:id", (request) => schedules.get(idOf(request.params, scheduleId)));

  api.patch("/schedules/:id", (request) => schedules.update(idOf(request.params, scheduleId), request.body));

  for (const change of ["pause", "resume"] as const) {
    api.post(`/schedules/:id/${change}`, (request) => {
      parse(noBody, request.body);
      return schedules[change](idOf(request.params, scheduleId));
    });
  }

  api.post("/schedules/:id/run", async (request, reply) => {
    parse(noBody, request.body);
    return reply.code(202).send(await schedules.run(idOf(request.params, scheduleId)));
  });

  api.get("/schedules/:id/runs", (request) =>
    schedules.runs(idOf(request.params, scheduleId), parse(runsListed, request.query)),
  );

  api.delete("/schedules/:id", async (request, reply) => {
    parse(noBody, request.body);
    await schedules.remove(idOf(request.params, scheduleId));
    return reply.code(204).send();
  });
}
